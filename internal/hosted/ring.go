package hosted

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	ringBytes = 64 << 10
	lineBytes = 4 << 10
)

// ring keeps the last lines that a server's processes printed, up to ringBytes.
type ring struct {
	mu    sync.Mutex
	lines []string
	size  int
	used  time.Time
}

func (r *ring) add(now time.Time, line string) {
	if len(line) > lineBytes {
		line = line[:lineBytes] + "…"
	}
	line = now.UTC().Format(time.RFC3339) + " " + strings.ToValidUTF8(line, "?")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = now
	r.lines = append(r.lines, line)
	for r.size += len(line); r.size > ringBytes; r.lines = r.lines[1:] {
		r.size -= len(r.lines[0])
	}
}

// last returns the newest n lines; 0 means all.
func (r *ring) last(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n == 0 || n > len(r.lines) {
		n = len(r.lines)
	}
	return append([]string{}, r.lines[len(r.lines)-n:]...)
}

// lines calls f for each line of src, without its end, and gives up on one that is longer than limit.
func lines(src io.Reader, limit int, f func(line []byte)) error {
	r := bufio.NewReaderSize(src, 32<<10)
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > limit {
			return bufio.ErrTooLong
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if len(line) > 0 {
			for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
				line = line[:len(line)-1]
			}
			f(line)
			line = nil
		}
		if err != nil {
			return err
		}
	}
}

// pieces calls f for each line of src, without its end, until that ends. Of a line that is longer than any that is kept, f gets the beginning, and
// how much was cut off.
func pieces(src io.Reader, f func(line []byte, cut int)) {
	const longest = 16 * lineBytes // a secret that stands across the end of what is kept is whole in here
	r := bufio.NewReaderSize(src, longest)
	for {
		line, err := r.ReadSlice('\n')
		cut := 0
		if err == bufio.ErrBufferFull {
			line = bytes.Clone(line)
			for err == bufio.ErrBufferFull {
				var rest []byte
				rest, err = r.ReadSlice('\n')
				cut += len(rest)
			}
		}
		if len(line) > 0 {
			f(bytes.TrimRight(line, "\r\n"), cut)
		}
		if err != nil {
			return
		}
	}
}
