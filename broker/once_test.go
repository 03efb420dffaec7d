package broker_test

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Beyond the bound the oldest keys are forgotten, and each key when its time is over.
func TestKeys_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, ttl = 3, time.Minute
		keys := broker.NewKeys(ttl, most)
		once := func(i int) broker.Once { return broker.Once{Key: strconv.Itoa(i), Digest: "d"} }
		for i := range 5 {
			keys.Add("upload:a", once(i), broker.Position{Epoch: "e", Offset: uint64(i)})
			<-time.After(time.Second)
		}
		for i := range 5 {
			at, found, err := keys.Find("upload:a", once(i))
			if found != (i >= 2) || err != nil || found && at.Offset != uint64(i) {
				t.Errorf("key %d: %+v, %v, %v", i, at, found, err)
			}
		}
		if _, found, _ := keys.Find("upload:b", once(4)); found || keys.Len() != most {
			t.Errorf("found: %v, %d keys", found, keys.Len())
		}
		<-time.After(ttl - 3*time.Second)
		keys.Expire()
		if _, found, _ := keys.Find("upload:a", once(2)); found || keys.Len() != 2 {
			t.Errorf("found: %v, %d keys when one has expired", found, keys.Len())
		}
		if _, _, err := keys.Find("upload:a", broker.Once{Key: "4", Digest: "other"}); !errors.Is(err, broker.ErrKeyReused) {
			t.Errorf("another digest: %v", err)
		}
	})
}
