// Package benchmarks measures the parts of the system without sockets: the registry, the fan-out, encoding,
// the outbox and the history. Run it with
//
//	go test -run '^$' -bench . -benchmem -cpu 1,2,4 ./benchmarks
//
// and compare runs with benchstat. What needs sockets, and other systems beside it, is in benchmarks/compare.
package benchmarks
