package systems

import (
	"testing"

	"go.uber.org/goleak"
)

// centrifuge's node, shut down, leaves behind workers that sleep for a second.
func TestMain(m *testing.M) {
	const worker = "github.com/centrifugal/centrifuge/internal/dissolve.(*Dissolver).runWorker"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(worker))
}
