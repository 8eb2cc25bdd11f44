//! FUSE's requests, answered.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use kmem_shell::{Access, File, FileError, FileKind, Status, System, Tree};

use super::numbers::{Open, Paths, ROOT, join};
use crate::hosted::Hosted;

/// For how long Linux may believe what it was told: modules come and go at the prompt.
const NO_TIME: Duration = Duration::ZERO;

/// The unit in which Linux counts the memory that a file has.
const BLOCK: u64 = 512;

/// What is shared by the threads that answer, and by who ends them.
pub struct Shared<const SHIFT: u32, const TRACE: bool> {
    machine: &'static Hosted<SHIFT, TRACE>,
    tree: Arc<Tree<'static, Hosted<SHIFT, TRACE>>>,
    paths: Mutex<Paths>,
    /// What is open; `None` at the end. Each request has it for reading as long as it runs.
    gate: RwLock<Option<Tables>>,
    since: SystemTime,
    user: u32,
    group: u32,
}

/// What is open.
struct Tables {
    files: Mutex<Open<Arc<File<'static>>>>,
    /// The names in directories as they were when those were opened.
    directories: Mutex<Open<Arc<Vec<Name>>>>,
}

/// A name in a directory.
struct Name {
    number: u64,
    kind: FileType,
    name: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is changed under these locks is whole after each statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<const SHIFT: u32, const TRACE: bool> Shared<SHIFT, TRACE> {
    pub fn new(
        machine: &'static Hosted<SHIFT, TRACE>,
        tree: Arc<Tree<'static, Hosted<SHIFT, TRACE>>>,
    ) -> Self {
        let tables =
            Tables { files: Mutex::new(Open::new()), directories: Mutex::new(Open::new()) };
        Shared {
            machine,
            tree,
            paths: Mutex::new(Paths::new()),
            gate: RwLock::new(Some(tables)),
            since: SystemTime::now(),
            // SAFETY: both calls only answer a number.
            user: unsafe { libc::geteuid() },
            // SAFETY: as above.
            group: unsafe { libc::getegid() },
        }
    }

    /// Waits for the requests that run, closes all files, and fails every request that comes later.
    pub fn close(&self) {
        let tables = self.gate.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(tables);
    }

    /// Does a request's work. It is not begun after the end, and ends before it.
    fn request<T>(&self, work: impl FnOnce(&Tables) -> Result<T, Errno>) -> Result<T, Errno> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let tables = gate.as_ref().ok_or(Errno::ENOTCONN)?;
        // A panic is a bug, and shown as one. Whoever asked must not wait for ever for it.
        catch_unwind(AssertUnwindSafe(|| work(tables))).unwrap_or(Err(Errno::EIO))
    }

    /// [`Shared::request`] as a task of the machine.
    fn task<T>(&self, work: impl FnOnce(&Tables) -> Result<T, Errno>) -> Result<T, Errno> {
        self.request(|tables| self.machine.task(|| work(tables)))
    }

    fn path(&self, number: INodeNo) -> Result<String, Errno> {
        lock(&self.paths).path(number.0).map(String::from).ok_or(Errno::ENOENT)
    }

    fn attributes(&self, number: u64, status: &Status) -> FileAttr {
        let (kind, links) = match status.kind {
            FileKind::Directory => (FileType::Directory, 2),
            FileKind::Device | FileKind::Text => (FileType::RegularFile, 1),
        };
        let perm = match (status.kind, status.writable) {
            (FileKind::Directory, _) => 0o555,
            (FileKind::Device, _) => 0o666,
            (FileKind::Text, true) => 0o644,
            (FileKind::Text, false) => 0o444,
        };
        FileAttr {
            ino: INodeNo(number),
            size: status.size,
            blocks: status.held.div_ceil(BLOCK),
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind,
            perm,
            nlink: links,
            uid: self.user,
            gid: self.group,
            rdev: 0,
            blksize: 1 << SHIFT,
            flags: 0,
        }
    }

    fn attributes_of(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        let path = self.path(number)?;
        let status = self.tree.status(&path).map_err(errno)?;
        Ok(self.attributes(number.0, &status))
    }
}

fn errno(error: FileError) -> Errno {
    Errno::from_i32(error.number())
}

/// What an open of the host's asks for. As in the texts' driver one for writing alone empties a device; not
/// so if all is to be appended.
fn access(flags: OpenFlags) -> Access {
    let append = flags.0 & libc::O_APPEND != 0;
    let write_only = flags.acc_mode() == OpenAccMode::O_WRONLY;
    Access {
        write: flags.acc_mode() != OpenAccMode::O_RDONLY,
        empty: flags.0 & libc::O_TRUNC != 0 || write_only && !append,
        append,
    }
}

thread_local! {
    /// What is read, on its way to the kernel.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The file system of one machine's files.
pub struct Files<const SHIFT: u32, const TRACE: bool>(pub Arc<Shared<SHIFT, TRACE>>);

impl<const SHIFT: u32, const TRACE: bool> Filesystem for Files<SHIFT, TRACE> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each is asked for by itself: an older kernel lacks some, and does with what it has.
        for wish in [
            // An open empties at once, and says so where it cannot.
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            // Programs may map the files, though they see copies.
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ] {
            let _ = config.add_capabilities(wish);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.task(|_| {
            let name = name.to_str().ok_or(Errno::ENOENT)?;
            let path = join(&self.0.path(parent)?, name);
            let status = self.0.tree.status(&path).map_err(errno)?;
            let number = lock(&self.0.paths).number(&path);
            Ok(self.0.attributes(number, &status))
        });
        match found {
            Ok(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.task(|_| self.0.attributes_of(number)) {
            Ok(attributes) => reply.attr(&NO_TIME, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        _accessed: Option<TimeOrNow>,
        _modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.0.task(|tables| {
            if mode.is_some() || user.is_some() || group.is_some() {
                return Err(Errno::EPERM);
            }
            if let Some(size) = size {
                let open = handle.and_then(|handle| lock(&tables.files).get(handle.0));
                let file = match open {
                    Some(file) => file,
                    None => {
                        let access = Access { write: true, ..Access::READ };
                        Arc::new(self.0.tree.open(&self.0.path(number)?, access).map_err(errno)?)
                    }
                };
                file.truncate(size).map_err(errno)?;
            }
            self.0.attributes_of(number)
        });
        match changed {
            Ok(attributes) => reply.attr(&NO_TIME, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.0.task(|tables| {
            let path = self.0.path(number)?;
            let file = self.0.tree.open(&path, access(flags)).map_err(errno)?;
            Ok(lock(&tables.files).add(Arc::new(file)))
        });
        match opened {
            // Each read and write comes here, and a text is read though its size is 0.
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let read = self.0.task(|tables| {
                let file = lock(&tables.files).get(handle.0).ok_or(Errno::EBADF)?;
                file.read_at(offset, &mut buffer[..size]).map_err(errno)
            });
            match read {
                Ok(count) => reply.data(&buffer[..count]),
                Err(error) => reply.error(error),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.0.task(|tables| {
            let file = lock(&tables.files).get(handle.0).ok_or(Errno::EBADF)?;
            // A mapping's bytes have a place of their own.
            let written = match write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
                true => file.write_back(offset, data),
                false => file.write_at(offset, data),
            };
            written.map_err(errno)
        });
        match written {
            // Linux sends less than 4 GiB at a time.
            Ok(count) => reply.written(count as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // Without a CPU: nobody waits for this, and a module is free to go when it has been done.
        let _ = self.0.request(|tables| Ok(lock(&tables.files).remove(handle.0)));
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: IoctlFlags,
        command: u32,
        input: &[u8],
        output: u32,
        reply: ReplyIoctl,
    ) {
        let mut argument = input.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        let done = self.0.task(|tables| {
            let file = lock(&tables.files).get(handle.0).ok_or(Errno::EBADF)?;
            file.ioctl(command, &mut argument).map_err(errno)
        });
        let bytes = argument.to_ne_bytes();
        match done {
            Ok(answer) => reply.ioctl(answer, &bytes[..bytes.len().min(output as usize)]),
            Err(error) => reply.error(error),
        }
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.0.task(|tables| {
            let directory = self.0.path(number)?;
            let mut all = Vec::new();
            for name in self.0.tree.names(&directory).map_err(errno)? {
                let path = join(&directory, &name);
                // It may have gone since.
                let Ok(status) = self.0.tree.status(&path) else { continue };
                let number = lock(&self.0.paths).number(&path);
                let FileAttr { kind, .. } = self.0.attributes(number, &status);
                all.push(Name { number, kind, name });
            }
            Ok(lock(&tables.directories).add(Arc::new(all)))
        });
        match opened {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let names =
            self.0.request(|tables| lock(&tables.directories).get(handle.0).ok_or(Errno::EBADF));
        let names = match names {
            Ok(names) => names,
            Err(error) => return reply.error(error),
        };
        let dots = [".", ".."].map(|name| (number.0, FileType::Directory, name));
        let entries =
            names.iter().map(|Name { number, kind, name }| (*number, *kind, name.as_str()));
        // The offset of an entry is where the next one is.
        let all = (1..).zip(dots.into_iter().chain(entries));
        for (next, (number, kind, name)) in all.skip(offset as usize) {
            if reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _ = self.0.request(|tables| Ok(lock(&tables.directories).remove(handle.0)));
        reply.ok();
    }

    /// What `df` shows is the machine's memory, in pages.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = self.0.task(|_| Ok(self.0.machine.mm().free_page_count()));
        match free {
            Ok(free) => {
                let (all, page) = (self.0.machine.ram_pages(), 1 << SHIFT);
                reply.statfs(all, free, free, 0, 0, page, 255, page);
            }
            Err(error) => reply.error(error),
        }
    }

    // What there is, modules say, and not files that somebody makes: they are `insmod`'s and `rmmod`'s.

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EPERM);
    }
}

const _: () = assert!(ROOT == INodeNo::ROOT.0, "fuser's root is ours");
