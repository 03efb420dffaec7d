// Package benchmarks measures the parts of the system without sockets: the registry, the fan-out, encoding,
// the outbox and the history. Run it with
//
//	go test -run '^$' -bench . -benchmem -cpu 1,2,4 ./benchmarks
//
// and compare runs with benchstat. Benchmarks over sockets, beside other systems, are in benchmarks/compare.
package benchmarks
