// Package broker defines the interface through which nodes share messages: it transports bytes on channels and is small
// enough for existing engines to implement. It is independent of users, uploads and connections.
//
// A channel name has the form kind:id. Kind consists of lower-case letters; id is valid UTF-8 of 1 to 255 bytes without
// control characters and may contain any other character, including colons. Engines with stricter naming rules encode
// the id.
//
// Memory connects nodes of one process. The directories beside it contain NATS and Redis, and brokertest, the
// conformance suite for all implementations.
package broker
