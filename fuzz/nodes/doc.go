// Command nodes runs three Shoal processes on a broker, each in a network namespace of its own, and restarts, kills,
// cuts off and freezes them one by one while messages are published and followed through all of them. It accounts for
// every message: each follower gets the accepted messages in order and once, or learns that some are missing. It needs
// Linux, root, iproute2, and for -broker redis and redis-cluster a redis-server.
//
//	go build -o bin/shoal ./cmd/shoal
//	go run ./fuzz/nodes -broker redis -duration 10m
package main
