package outbox

// tcpNotSentLowat is TCP_NOTSENT_LOWAT of netinet/tcp.h, which the package syscall lacks.
const tcpNotSentLowat = 0x201
