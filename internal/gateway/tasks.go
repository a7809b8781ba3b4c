package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/gateway/pending"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// Task is what a call has begun at a server, that ends later (tasks of 2025-11-25; extension io.modelcontextprotocol/tasks).
// Servers behind us know nobody but us, so it is here that a task is its caller's: who else names it hears what is said of one
// that does not exist.
type Task struct {
	Tenant    identity.Tenant
	Server    catalog.ServerName
	ID        []byte // SHA-256 of the id that the server gave
	Principal string // identity.Caller.Principal of whose call began it
	Client    identity.ClientID
	Tool      string
	Created   time.Time
	Expires   time.Time // when it is forgotten here
}

// Tasks keeps tasks.
type Tasks interface {
	// PutTask inserts or replaces. fault.Conflict where another caller has a task of that id which has not expired.
	PutTask(ctx context.Context, k Task) error
	Task(ctx context.Context, t identity.Tenant, s catalog.ServerName, id []byte) (Task, error)
	DropTasks(ctx context.Context, expired time.Time) error
}

// How long a task can be followed, whatever its server says of that.
const (
	minTaskLife = time.Hour
	maxTaskLife = 7 * 24 * time.Hour
	maxTaskID   = 1 << 10 // bytes
)

func taskDigest(id string) []byte {
	d := sha256.Sum256([]byte(id))
	return d[:]
}

// taskKey is under what the lease of the call that began a task is parked.
func taskKey(t identity.Tenant, s catalog.ServerName, id []byte) pending.Key {
	return pending.Key("task\x00" + string(t) + "\x00" + string(s) + "\x00" + hex.EncodeToString(id))
}

// taskIn is the task that an answer to a tool's call begins: its id, and how long the server keeps it (0: it does not say).
func taskIn(m *mcp.Message) (id string, ttl time.Duration) {
	if !bytes.Contains(m.Raw, []byte(`"taskId"`)) || !m.Result.Present() { // nearly always
		return "", 0
	}
	result := m.Of(m.Result)
	task, life := mcp.Lookup(result, "task"), "ttl"
	if mcp.Text(mcp.Lookup(result, "resultType")) == "task" {
		task, life = result, "ttlMs"
	}
	ms, err := strconv.ParseInt(string(mcp.Lookup(task, life)), 10, 64)
	if err != nil {
		ms = 0 // null: the server keeps it for as long as it likes
	}
	return mcp.Text(mcp.Lookup(task, "taskId")), time.Duration(min(max(ms, 0), maxTaskLife.Milliseconds())) * time.Millisecond
}

// begins notes the task that an answer begins. The call stays open until the task has ended, or call_limit has: its server works
// on, and its keycard has to work. The answer that it returns goes to the client in place of the server's; nil: that passes.
func (c *call) begins(lease broker.Lease, m *mcp.Message) (instead []byte) {
	if c.m.Method != "tools/call" {
		return nil
	}
	id, ttl := taskIn(m)
	if id == "" {
		return nil
	}
	if len(id) > maxTaskID || hidden(id) {
		return c.unfit("a task whose id cannot be shown")
	}
	now := c.g.Now()
	k := Task{Tenant: c.tenant, Server: c.server.Name, ID: taskDigest(id), Principal: c.caller.Principal(), Client: c.caller.Client, Tool: c.m.Target,
		Created: now, Expires: now.Add(max(cmp.Or(ttl, maxTaskLife), minTaskLife, c.server.CallLimit))}
	err := c.g.Tasks.PutTask(context.WithoutCancel(c.ctx), k)
	if fault.KindOf(err) == fault.Conflict {
		return c.unfit("a task under an id that another caller's has")
	}
	if err != nil {
		c.g.Log.Error("a task could not be kept, so nobody can follow it", "server", c.server.Name, "tenant", c.tenant, "error", err)
		return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeUnavailable, c.server.Title+" began to work, but its task could not be kept here, so it cannot be followed. Look whether it has done its work before you call it again.", nil)
	}
	c.parked = true
	c.park(taskKey(k.Tenant, k.Server, k.ID), lease) // before the client knows of it, and can ask
	return nil
}

// follow is a request about a task: the caller's own, of a tool that he may still see.
func (c *call) follow() {
	k, err := c.ownTask(c.m.Target)
	if err != nil {
		c.no(err)
		return
	}
	if k == nil {
		c.write(http.StatusOK, c.noTask())
		return
	}
	c.task = k
	c.forward(broker.KindCatalogue) // what acts was decided when it began
}

// ownTask is nil for what the caller has not begun, or may not see any more.
func (c *call) ownTask(id string) (*Task, error) {
	if hidden(id) || len(id) > maxTaskID {
		return nil, nil
	}
	k, err := c.g.Tasks.Task(c.r.Context(), c.tenant, c.server.Name, taskDigest(id))
	if fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if k.Principal != c.caller.Principal() || k.Client != c.caller.Client || !c.g.Now().Before(k.Expires) {
		return nil, nil
	}
	see, err := c.g.Door.Visible(c.r.Context(), c.caller, c.server, "tools/call", []string{k.Tool})
	if err != nil || !see[0] {
		return nil, err
	}
	return &k, nil
}

// ownTasks says which ids are the caller's; an error is a no.
func (c *call) ownTasks(ids []string) []bool {
	own := make([]bool, len(ids))
	for i, id := range ids {
		k, err := c.ownTask(id)
		own[i] = err == nil && k != nil
	}
	return own
}

// noTask is made by us, for another caller's tasks and for made-up ones alike.
func (c *call) noTask() []byte {
	return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeParams, "Unknown task", nil)
}

// followed ends the call that began a task, where an answer shows that the task has ended. Where all that it asked of APIs was
// refused for a missing connection, the answer becomes the question, as that of the call itself would have done.
func (c *call) followed(m *mcp.Message) (instead []byte) {
	if c.task == nil || !m.Result.Present() && c.m.Method != "tasks/result" {
		return nil
	}
	status := mcp.Text(mcp.Lookup(m.Of(m.Result), "status"))
	if c.m.Method == "tasks/result" { // it answers when the task has ended, with what the call came to
		status = "completed"
		if m.Err.Present() || string(mcp.Lookup(m.Of(m.Result), "isError")) == "true" {
			status = "failed"
		}
	}
	if s := c.g.taskEnded(c.task, status); len(s.Missing) > 0 && s.Successes == 0 {
		return c.question(s.Missing)
	}
	return nil
}

// taskEnded records the outcome of the call that began a task, if it is open here and the status is a last one, and returns what is
// known of that call.
func (g *Gateway) taskEnded(k *Task, status string) broker.State {
	o := broker.Outcome{Result: audit.ResultOK, Detail: "the task has ended"}
	switch status {
	case "completed":
	case "failed", "cancelled":
		o = broker.Outcome{Result: audit.ResultFailed, Detail: "the task was " + status}
		if status == "failed" {
			o.Detail = "the task has failed"
		}
	default:
		return broker.State{}
	}
	return g.calls.End(taskKey(k.Tenant, k.Server, k.ID), o)
}

// ofTask judges a notice about a task: it goes on to whose task it is.
func (f *foreign) ofTask(m *mcp.Message) []byte {
	params := m.Of(m.Params)
	id := mcp.Text(mcp.Lookup(params, "taskId"))
	k, err := f.ownTask(id)
	if err != nil || k == nil {
		f.tell("word of a task that is not this caller's")
		return nil
	}
	f.g.taskEnded(k, mcp.Text(mcp.Lookup(params, "status")))
	return m.Raw
}

// aboutTask reports whether a request is about one task.
func aboutTask(method string) bool {
	return strings.HasPrefix(method, "tasks/") && method != methodTasks
}

const methodTasks = "tasks/list"
