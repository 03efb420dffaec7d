package embedded_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/broker/brokertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, brokertest.LeftByLinks()...) }
