package outbox

// tcpNotSentLowat is TCP_NOTSENT_LOWAT of tcp(7), which the package syscall lacks.
const tcpNotSentLowat = 0x19
