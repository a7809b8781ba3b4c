package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// The ports of address and direct.
const port, directPort = 3128, 443

// devices that do nothing but answer.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// defaultScratch is what a program may write, in bytes, where nothing is said.
const defaultScratch = 64 << 20

// scratch bounds what the program may write; it counts as its memory, and so do its files, however small they are.
func (b *builder) scratch() string {
	size := cmp.Or(b.Setup.Scratch, defaultScratch)
	return fmt.Sprintf("size=%d,nr_inodes=%d,mode=0700", size, size>>10)
}

// tree makes a file tree of nothing, puts in what may be read, and leaves the old one behind. Everything in it is read-only
// but the program's own directory.
func (b *builder) tree() error {
	if err := firstTurn(); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/new", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return err
	}
	for _, path := range slices.Concat(System, devices) {
		if err := b.bring(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, path := range b.Setup.Read {
		if err := b.bring(path); err != nil {
			return fmt.Errorf("%s cannot be made readable (every directory above it must be open to everybody): %w", path, err)
		}
	}
	if err := b.own(); err != nil {
		return err
	}
	return secondTurn(unix.MS_RDONLY)
}

// firstTurn begins a new tree: the machine's is below /old from here on, and no part of it is hidden under the place that is
// built on.
func firstTurn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return err
	}
	return errors.Join(os.Mkdir("/tmp/old", 0o755), os.Mkdir("/tmp/new", 0o755), os.Mkdir("/tmp/low", 0o755), os.Mkdir("/tmp/layer", 0o755), unix.PivotRoot("/tmp", "/tmp/old"), os.Chdir("/"))
}

// secondTurn makes /new the root, read-only where access is MS_RDONLY. What was before is gone for good.
func secondTurn(access uintptr) error {
	if err := errors.Join(os.Chdir("/new"), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir("/")); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|access|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// own adds what is no copy of the machine's: processes, a home, and files that programs expect.
func (b *builder) own() error {
	for _, dir := range []string{"/new/proc", "/new/etc"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(Scratch, "/new/tmp"); err != nil && !errors.Is(err, fs.ErrExist) { // /tmp is there where a part of it is to be read
		return err
	}
	if err := b.live(); err != nil {
		return err
	}
	return writeFiles(map[string]string{"/etc/passwd": fmt.Sprintf("server:x:%d:%d::%s:/bin/sh\n", Nobody, Nobody, Scratch), "/etc/group": fmt.Sprintf("server:x:%d:\n", Nobody),
		"/etc/hosts": b.hosts(), "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n"})
}

// hosts names what this network has: itself, and the hosts that lead to direct.
func (b *builder) hosts() string {
	text := "127.0.0.1 localhost server\n"
	for _, name := range b.Setup.Names {
		text += "127.0.0.1 " + name + "\n"
	}
	return text
}

// live adds what every tree has of this process's own: /proc, what else is below /dev, the scratch directory, and the files of
// the setup.
func (b *builder) live() error {
	if err := unix.Mount("proc", "/new/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if err := os.MkdirAll("/new"+Scratch, 0o755); err != nil {
		return err
	}
	if b.layered {
		if err := unix.Mount("/layer/home", "/new"+Scratch, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	} else if err := unix.Mount("tmpfs", "/new"+Scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, b.scratch()); err != nil {
		return err
	}
	for at, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, "/new/dev/"+at); err != nil {
			return err
		}
	}
	return writeFiles(b.Setup.Write)
}

func writeFiles(files map[string]string) error {
	for path, text := range files {
		if err := os.MkdirAll("/new"+filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile("/new"+path, []byte(text), 0o444); err != nil {
			return err
		}
	}
	return nil
}

// image makes the tree of an image: its root, which is where this process stands, and nothing else of the machine. What an
// image holds at Mounts is covered. What the program changes in it is a layer of its own.
func (b *builder) image() error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, ".", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("the image's root: %w", err)
	}
	defer func() { _ = unix.Close(tree) }() // it is mounted by then, or of no use
	if err := firstTurn(); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, "/low", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/low", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}); err != nil {
		return err
	}
	for _, dir := range Mounts {
		if info, err := os.Lstat("/low" + dir); err != nil || !info.IsDir() {
			return fmt.Errorf("the image's root has no directory %s", dir)
		}
	}
	access := uintptr(0)
	if err := b.layer(); err != nil {
		b.readOnly, access = err.Error(), unix.MS_RDONLY
		if err := unix.Mount("/low", "/new", "", unix.MS_BIND, ""); err != nil { // read-only as that is
			return err
		}
	}
	small := []string{"/new/dev", "/new/run"} // proc comes with the rest
	for _, dir := range small {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
			return err
		}
	}
	for _, path := range devices {
		if err := bind(path, "/new"+path); err != nil {
			return err
		}
	}
	if err := b.live(); err != nil {
		return err
	}
	if err := b.named(); err != nil {
		return err
	}
	for _, dir := range small {
		if err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return err
		}
	}
	return secondTurn(access)
}

// named covers the image's hosts file, which is there and of no use in this network.
func (b *builder) named() error {
	const own, at = "/run/frontdesk/hosts", "/new/etc/hosts"
	if err := writeFiles(map[string]string{own: b.hosts()}); err != nil {
		return err
	}
	if info, err := os.Lstat(at); err != nil || !info.Mode().IsRegular() {
		return nil // an image that was not unpacked by us
	}
	return unix.Mount("/new"+own, at, "", unix.MS_BIND, "")
}

// layer lays one that can be written over the image. It is in memory, and has one bound with the program's own directory.
func (b *builder) layer() error {
	if err := unix.Mount("tmpfs", "/layer", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, b.scratch()); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir("/layer/home", 0o700), os.Mkdir("/layer/upper", 0o755), os.Mkdir("/layer/work", 0o700)); err != nil {
		return err
	}
	if err := unix.Mount("overlay", "/new", "overlay", unix.MS_NOSUID|unix.MS_NODEV, "lowerdir=/low,upperdir=/layer/upper,workdir=/layer/work,userxattr"); err != nil {
		return err
	}
	b.layered = true
	return nil
}

// maxLinks is how many symbolic links a path may go through, as in the kernel.
const maxLinks = 40

// bring makes a path of the machine readable at the same place. A link on the way stays a link, and what it leads to comes too.
func (b *builder) bring(path string) error { return b.bringBy(filepath.Clean(path), maxLinks) }

func (b *builder) bringBy(path string, links int) error {
	if links == 0 {
		return unix.ELOOP
	}
	for end := 1; end <= len(path); end++ {
		if end < len(path) && path[end] != '/' {
			continue
		}
		prefix, rest := path[:end], path[end:]
		info, err := os.Lstat("/old" + prefix)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		target, err := os.Readlink("/old" + prefix)
		if err != nil {
			return err
		}
		if err := place(prefix, func(to string) error { return os.Symlink(target, to) }); err != nil {
			return err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(prefix), target)
		}
		return b.bringBy(filepath.Join(target, rest), links-1)
	}
	return place(path, func(to string) error { return bind(path, to) })
}

// place makes the directories above a path, and then what belongs there, if it did not come with one of them. A directory that was
// only made, for something in it that was named first, is still to come.
func place(path string, put func(to string) error) error {
	to := "/new" + path
	var at, tree unix.Stat_t
	if err := unix.Lstat(to, &at); err == nil {
		if err := unix.Lstat("/new", &tree); err != nil {
			return err
		}
		if made := at.Mode&unix.S_IFMT == unix.S_IFDIR && at.Dev == tree.Dev; !made {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return put(to)
}

func bind(path, to string) error {
	info, err := os.Stat("/old" + path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(to, 0o755)
	} else {
		err = os.WriteFile(to, nil, 0o444)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount("/old"+path, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	if !slices.Contains(devices, path) {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	return unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, attr)
}
