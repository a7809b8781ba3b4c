package audit

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Head is where a writer's chain stood: its newest durable row.
type Head struct {
	Writer string
	Seq    int64
	Hash   [32]byte
}

// Checkpoint is a signed statement of where the chains stood. Its form is a checkpoint of a transparency log
// (c2sp.org/tlog-checkpoint): origin, size and root of a Merkle tree, then lines of our own, signed as a note
// (c2sp.org/signed-note) with Ed25519. The tree's leaves are the lines of heads of all checkpoints so far, so it only grows,
// and any witness of such logs can follow it.
type Checkpoint struct {
	Number   int64 // from 1, without gaps
	Origin   string
	Size     int64     // of the tree: how many heads were named, by this one and all before it
	Root     tlog.Hash // of the tree (RFC 6962 section 2.1)
	Previous [32]byte  // SHA-256 of the checkpoint before, as it was signed; zero in the first
	Time     time.Time // to the second
	Heads    []Head    // of the chains that moved
	Next     string    // verifier key with which all later ones are signed; "" where it stays
	Restored bool      // an operator said that it is known what is missing: what was signed after this one's predecessor is gone
	Lost     int64     // the highest number of those that had been signed and that the database has lost; 0: none
	Signed   []byte    // the note
}

// leaf is the line of a head, which is also what the tree is over.
func (h Head) leaf() string {
	return "head " + h.Writer + " " + strconv.FormatInt(h.Seq, 10) + " " + base64.StdEncoding.EncodeToString(h.Hash[:])
}

func (c *Checkpoint) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%d\n%s\nnumber %d\nprevious %s\ntime %s\n", c.Origin, c.Size, c.Root, c.Number, base64.StdEncoding.EncodeToString(c.Previous[:]), c.Time.UTC().Format(time.RFC3339))
	for _, h := range c.Heads {
		b.WriteString(h.leaf() + "\n")
	}
	if c.Next != "" {
		b.WriteString("key " + c.Next + "\n")
	}
	if c.Restored {
		b.WriteString("restored\n")
	}
	if c.Lost > 0 {
		fmt.Fprintf(&b, "lost %d\n", c.Lost)
	}
	return b.String()
}

// digest is what the next checkpoint names as Previous.
func (c *Checkpoint) digest() [32]byte { return sha256.Sum256(c.Signed) }

// explains reports whether c says that o was lost with a restore from a backup.
func (c *Checkpoint) explains(o *Checkpoint) bool {
	return c.Restored && c.Number <= o.Number && !c.Time.Before(o.Time)
}

// lacks reports whether c says that a database had lost checkpoints, of which o may be one.
func (c *Checkpoint) lacks(o *Checkpoint) bool { return o.Number <= c.Lost }

// sign fills in Signed.
func (c *Checkpoint) sign(by note.Signer) (err error) {
	c.Signed, err = note.Sign(&note.Note{Text: c.text()}, by)
	return err
}

// ParseCheckpoint reads a checkpoint without looking at its signature.
func ParseCheckpoint(signed []byte) (c Checkpoint, err error) {
	text, signatures, ok := strings.Cut(string(signed), "\n\n")
	lines := strings.Split(text, "\n")
	if !ok || len(lines) < 6 || !strings.HasPrefix(signatures, "— ") || !strings.HasSuffix(signatures, "\n") {
		return c, fmt.Errorf("this is no checkpoint of a Frontdesk log")
	}
	c = Checkpoint{Origin: lines[0], Signed: signed}
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return c, fmt.Errorf("the checkpoint's size is no number")
	}
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return c, fmt.Errorf("the checkpoint's root is no hash")
	}
	for _, line := range lines[3:] {
		if err := c.line(line); err != nil {
			return c, err
		}
	}
	if c.text() != text+"\n" { // one form: nothing in it is read and not compared
		return c, fmt.Errorf("the checkpoint is not in the form in which Frontdesk writes it")
	}
	return c, nil
}

func (c *Checkpoint) line(line string) (err error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "number":
		c.Number, err = strconv.ParseInt(rest, 10, 64)
	case "previous":
		err = hash(&c.Previous, rest)
	case "time":
		c.Time, err = time.Parse(time.RFC3339, rest)
	case "head":
		var h Head
		parts := strings.Split(rest, " ")
		if len(parts) != 3 {
			return fmt.Errorf("the checkpoint's line %q cannot be read", line)
		}
		h.Writer = parts[0]
		if h.Seq, err = strconv.ParseInt(parts[1], 10, 64); err == nil {
			err = hash(&h.Hash, parts[2])
		}
		c.Heads = append(c.Heads, h)
	case "key":
		c.Next = rest
	case "restored":
		c.Restored = true
	case "lost":
		c.Lost, err = strconv.ParseInt(rest, 10, 64)
	default:
		return fmt.Errorf("the checkpoint's line %q means nothing to this Frontdesk; a newer one may know it", line)
	}
	if err != nil {
		return fmt.Errorf("the checkpoint's line %q cannot be read", line)
	}
	return nil
}

func hash(into *[32]byte, text string) error {
	b, err := base64.StdEncoding.DecodeString(text)
	if err == nil && copy(into[:], b) != len(b) || len(b) != len(into) {
		err = fmt.Errorf("no hash")
	}
	return err
}

// Split takes a file apart to which one checkpoint after the other was appended, each followed by an empty line.
func Split(file []byte) (signed [][]byte) {
	var text, whole strings.Builder
	inSignatures := false
	for line := range strings.Lines(string(file)) {
		switch {
		case inSignatures && !strings.HasPrefix(line, "—"):
			signed = append(signed, []byte(whole.String()))
			whole.Reset()
			text.Reset()
			inSignatures = false
			if line == "\n" {
				continue
			}
		case !inSignatures && line == "\n" && text.Len() > 0:
			inSignatures = true
		case !inSignatures && line == "\n":
			continue
		}
		if !inSignatures {
			text.WriteString(line)
		}
		whole.WriteString(line)
	}
	if whole.Len() > 0 {
		signed = append(signed, []byte(whole.String()))
	}
	return signed
}

// edge is the right edge of the tree: the roots of its complete subtrees, the largest first. From it the tree goes on.
type edge struct {
	size   int64
	hashes []tlog.Hash
}

func (e *edge) add(heads []Head) {
	for _, head := range heads {
		h := tlog.RecordHash([]byte(head.leaf()))
		for s := e.size; s&1 == 1; s >>= 1 {
			last := len(e.hashes) - 1
			h = tlog.NodeHash(e.hashes[last], h)
			e.hashes = e.hashes[:last]
		}
		e.hashes = append(e.hashes, h)
		e.size++
	}
}

func (e *edge) root() tlog.Hash {
	if len(e.hashes) == 0 {
		return sha256.Sum256(nil)
	}
	h := e.hashes[len(e.hashes)-1]
	for i := len(e.hashes) - 2; i >= 0; i-- {
		h = tlog.NodeHash(e.hashes[i], h)
	}
	return h
}

func (e *edge) bytes() []byte {
	var b []byte
	for _, h := range e.hashes {
		b = append(b, h[:]...)
	}
	return b
}

// edgeOf reads what bytes wrote. Whether it is the edge of a tree, only the root says.
func edgeOf(size int64, b []byte) edge {
	e := edge{size: size}
	for ; len(b) >= 32; b = b[32:] {
		e.hashes = append(e.hashes, tlog.Hash(b[:32]))
	}
	return e
}

// IsKey reports whether text is a verifier key of checkpoints.
func IsKey(text string) bool {
	_, err := note.NewVerifier(text)
	return err == nil
}
