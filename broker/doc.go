// Package broker is what nodes share messages through: channels and bytes, behind a small interface that an
// existing engine fulfils. It knows nothing of users, uploads or connections.
//
// A channel is a name of the form kind:id. Kind is of lower-case letters; id is valid UTF-8 of 1 to 255 bytes
// without control characters, and may hold anything else, colons too. Engines whose names cannot hold that
// encode it.
//
// Memory joins nodes of one process. The folders beside it hold NATS and Redis, and brokertest the suite that
// all of them pass.
package broker
