// Package sim runs whole nodes (manager and server), their broker, their network and their clients within one
// synctest bubble, through histories drawn from a seed, and checks each promise of docs/guarantees.md against an
// account of every message that was accepted.
//
// A history is a list of operations: publications, connections, subscriptions, and faults of the network, of the broker
// and of nodes. [Draw] makes it from a seed, [Run] executes it, and [Shrink] removes every operation that a
// violation does not need.
//
// # Checks
//
// Clients record every frame. When the bubble is idle, the recorded frames are compared with the account. The server
// handles the messages of a connection one after the other, so that it is known for each request which token decides on
// it, and which of the answers, if they come late, belongs to which request.
//
//   - on shoal.v1 each message has the body that was accepted at its epoch and offset, offsets increase, and each
//     missing one is a state that a newer message counts in skipped;
//   - on the base protocol messages arrive in the order of acceptance, each once, and only states may be missing;
//   - an event or a terminal message is never missing: a gap is preceded by a new position, or the connection was
//     closed with a code;
//   - every request is answered, once, and the newest message follows an answer that does not recover the client;
//   - the hooks for claims are called in their order;
//   - a client that continues a position recovers, if the messages after it are held, and an answer says that the
//     newest message has expired only if it has;
//   - no new position is announced if nothing was lost;
//   - no code but those of the protocol is sent, and none that the faults of the history do not explain;
//   - the connections of a disconnected user end, and newer ones stay;
//   - a connection whose hook or Send has panicked ends, and no other one;
//   - exactly the connections of users that follow an upload get its messages;
//   - a message that is published with a key is accepted once, on any nodes;
//   - uploads whose messages can be read catch up while another one cannot be read, and nodes become ready;
//   - a connection ends with its token and receives no upload that its renewed token does not allow;
//   - publishing takes no simulated time while clients stall, and closing at most its deadline;
//   - after all faults are repaired every client has the newest message of each upload that it follows;
//   - nothing is left in a registry, and no goroutine, at the end.
//
// # Determinism
//
// The seed decides the configuration, the operations, their parameters, the sizes of reads and the loss of messages,
// and time is simulated. In every third history the clocks of nodes differ. The interleaving of goroutines that run at
// the same simulated instant is the scheduler's, as are the order of timers that end at the same instant, the choice
// between ready cases of a select, and the random values that the product draws itself (epochs, pauses, slots of pings,
// the order of a drain). Most operations wait until the bubble is idle, so that few goroutines compete, and late
// answers of the broker end at different instants; operations that are marked "at once" do not wait, in order to race.
// Without these, and without slow clients and outages, a history is executed in the same way each time. A failing
// history is replayed several times by [Shrink], which keeps a removal only if the violation occurs again.
package sim
