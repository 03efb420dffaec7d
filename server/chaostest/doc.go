// Package chaostest attacks a WebSocket server with misbehaving clients, for the tests of embedders: each [Attack] is one
// kind of client, [Run] lets some of them loose on any http.Handler, listener or URL, and the [Report] says which bound of the
// server stopped them, after how long, at which cost, and how a well-behaved client fared beside them.
//
//	for _, attack := range chaostest.Attacks() {
//		report, err := chaostest.Run(t.Context(), chaostest.Target{Serve: srv.Serve, First: authMessage}, attack)
//		if err != nil {
//			t.Fatal(err)
//		}
//		if report.Open > 0 {
//			t.Errorf("%s: nothing has stopped %d clients", attack.Name, report.Open)
//		}
//	}
//
// Nothing in this package depends on Shoal's protocol but the default messages of [Target], which can be replaced.
package chaostest
