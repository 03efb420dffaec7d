package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// store is the directory of a server. It is locked: two servers in one directory would overwrite each other's messages.
type store struct {
	dir       string
	temporary bool     // close removes the directory
	lock      *os.File // nil for a temporary directory
}

// openStore opens a directory, which it makes unless it exists, or makes a temporary one for "".
func openStore(dir string) (*store, error) {
	if dir == "" {
		made, err := os.MkdirTemp("", "shoal-nats-")
		if err != nil {
			return nil, fmt.Errorf("embedded: create the temporary directory: %w", err)
		}
		return &store{dir: made, temporary: true}, nil
	}
	if err := tryDir(dir); err != nil {
		return nil, fmt.Errorf("embedded: Options.StoreDir must be a directory that this process may write to: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("embedded: Options.StoreDir must be a directory of this server alone, is it in use? %w", err)
	}
	return &store{dir: dir, lock: lock}, nil
}

// tryDir makes a directory, unless it exists, and writes a file there. The server itself would only not become ready.
func tryDir(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	probe, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return err
	}
	_, err = probe.Write([]byte{0})
	return errors.Join(err, probe.Close(), os.Remove(probe.Name()))
}

// lockDir locks a directory until the returned file is closed or the process ends. A system or file system
// without locks leaves the directory unlocked.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "shoal.lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := tryLock(file); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: path, Err: err}, file.Close())
	}
	return file, nil
}

// close removes a temporary directory, and unlocks another one. The server has stopped, and with it the goroutines of
// its stores and of its Raft groups, which write there.
func (s *store) close() error {
	if !s.temporary {
		return s.lock.Close()
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("embedded: remove the temporary directory: %w", err)
	}
	return nil
}
