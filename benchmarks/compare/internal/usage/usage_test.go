package usage

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestWhatIsUsedGrows(t *testing.T) {
	const size = 64 << 20
	heap, resident := Heap(), Resident()
	held := make([]byte, size)
	for i := range held {
		held[i] = 1
	}
	if grown := Heap() - heap; grown < size*3/4 || grown > size*5/4 {
		t.Errorf("the heap has grown by %d, want about %d", grown, size)
	}
	if grown := Resident() - resident; grown < size*3/4 {
		t.Errorf("the resident memory has grown by %d, want about %d", grown, size)
	}
	runtime.KeepAlive(held)
	GiveBack()
	if more := Resident() - resident; more > size/2 {
		t.Errorf("%d bytes were not given back", more)
	}
	for CPUOf(os.Getpid()) == 0 && CPU() < int64(time.Minute) {
		// Hundredths of a second are the unit: keep busy until the first is over.
	}
	if own, other := CPU(), CPUOf(os.Getpid()); other == 0 || other > own+int64(time.Second) {
		t.Errorf("this process has used %d ns, seen from outside %d", own, other)
	}
	if CPUOf(-1) != 0 {
		t.Error("a process that is not there has used the processors")
	}
	if CPU() == 0 || Slab() == 0 {
		t.Errorf("the processors were used for %d ns, the kernel's slabs are %d bytes", CPU(), Slab())
	}
}

func TestWritesAreCounted(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	before := Writes()
	for range 10 {
		if _, err := file.WriteString("x"); err != nil {
			t.Fatal(err)
		}
	}
	if n := Writes() - before; n < 10 || n > 1000 { // the test's own output may come in between
		t.Errorf("%d writes were counted, want 10", n)
	}
}

func TestNumbersThatAreNotThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(file, []byte("A: 3 kB\nB:\nC: many kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"A:": 3, "B:": 0, "C:": 0, "D:": 0} {
		if got := number(file, name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	if got := number(file+"x", "A:"); got != 0 {
		t.Errorf("a file that is not there holds %d", got)
	}
}
