// Package managertest helps to test programs that use a [manager.Manager], without sockets: a [Conn] records the
// messages of one connection and waits for them.
//
//	m, err := manager.New(manager.Options{})
//	…
//	ann := managertest.NewConn()
//	if err := m.Connect("ann", ann); err != nil { … }
//	… // the program under test subscribes ann and publishes
//	messages := ann.Wait(t, 2)
//
// No helper polls or sleeps, so all of them work in a bubble of testing/synctest too.
package managertest
