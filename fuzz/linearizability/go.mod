module github.com/shoal-go/shoal/fuzz/linearizability

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/shoal-go/shoal v0.1.0
	go.uber.org/goleak v1.3.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/puzpuzpuz/xsync/v3 v3.5.1 // indirect
)
