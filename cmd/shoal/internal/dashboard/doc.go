// Package dashboard serves a page for operators: the counts of a server, live, its slowest connections, and a page for
// one upload and one user.
//
// The numbers reach the page by the protocol of the project itself: a manager and a server of the dashboard's own,
// which clients of the observed server cannot reach, publish them as states of two uploads. They are made when the
// first page connects. While no page follows, nothing is counted or published.
//
// Numbers are for everybody who reaches the handler. Ids of users, addresses and messages need an API key of the
// observed server, unless [Options.Trusted] grants them. Actions always need the key.
package dashboard
