package image

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncAll makes everything durable that was written to the file system of a directory.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
