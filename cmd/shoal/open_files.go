package main

// The descriptors of a process that WebSockets must leave free.
const (
	// reservedFiles are for the admin listener, the broker, keys, certificates and the runtime.
	reservedFiles = 64
	// reservedSockets are for publishers and handshakes on the public listener.
	reservedSockets = 64
)

// connectionLimits returns how many WebSockets and how many sockets of the listeners the server may have: as many as
// --max-connections says, but no more than the limit of open files allows. 0: no bound, where the system has none.
func (n *node) connectionLimits() (connections, sockets int) {
	return limitConnections(n.flags.MaxConnections, maxOpenFiles())
}

// limitConnections returns the limits for a number of open files, 0 being no limit.
func limitConnections(wanted, files int) (connections, sockets int) {
	if files == 0 {
		return wanted, 0
	}
	// A tiny limit is divided, so that the server can be tried with it.
	possible := max(files-reservedFiles-reservedSockets, files/4, 1)
	if wanted > 0 && wanted <= possible {
		possible = wanted
	}
	return possible, possible + min(reservedSockets, files/4)
}

// warnOfOpenFiles logs that --max-connections cannot be met.
func (n *node) warnOfOpenFiles() {
	files := maxOpenFiles()
	if possible, _ := limitConnections(n.flags.MaxConnections, files); n.flags.MaxConnections > possible {
		n.log.Warn("limit of open files is too low for --max-connections", "open_files", files,
			"max_connections", possible, "wanted", n.flags.MaxConnections, "remedy", "raise it, for example with ulimit -n")
	}
}
