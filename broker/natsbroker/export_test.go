package natsbroker

// Overflows returns how many messages were dropped since the node has connected because its queue had no room.
func (b *Broker) Overflows() uint64 { return b.session.Load().overflows.Load() }
