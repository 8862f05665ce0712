/* Stands between a program and its disk: writes down what is written and synced, and lets the n-th call fail.
 *
 * WATTHERD_DISK_UNDER names the directory that matters, WATTHERD_DISK a file with the orders below, which a test maps
 * too, and WATTHERD_DISK_LOG, if it is there, the file into which every change goes, in the order in which they happened.
 * Shared memory of SQLite (-shm) may fail like everything else but is not written down: no power cut outlives it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* tests/faults/lab/disk.py has the same. */
static volatile struct {
    int64_t calls;   /* that were made since the test set it to 0 */
    int64_t fail_at; /* the number of the first call to fail; 0: none */
    int64_t fail_for; /* how many calls fail from there on */
    int64_t error;   /* errno that they fail with; -1: a write does only half of its work; -2: the process is killed */
    int64_t failed;  /* how many did */
    int64_t kinds;   /* bits of the kinds that count and may fail */
    char last[104];  /* the last that did, in words */
} *orders;
enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, MKDIR, READ, OPEN };
struct head { uint32_t kind, path_bytes; int64_t offset, bytes; }; /* then the path, then the data */

static char under[PATH_MAX];
static size_t under_bytes;
static int log_fd = -1;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void)
{
    const char *place = getenv("WATTHERD_DISK_UNDER"), *path = getenv("WATTHERD_DISK"), *log = getenv("WATTHERD_DISK_LOG");
    int file = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
    if (!place || file < 0)
        return;
    void *memory = mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    REAL(close)(file);
    if (memory == MAP_FAILED)
        abort();
    if (log && (log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0)
        abort();
    orders = memory;
    snprintf(under, sizeof under, "%s", place);
    under_bytes = strlen(under);
}

static int matters(const char *path)
{
    return under_bytes && path && !strncmp(path, under, under_bytes) && (path[under_bytes] == '/' || !path[under_bytes]);
}

/* The path of an open file, if it is one that matters. */
static const char *path_of(int fd, char path[PATH_MAX])
{
    char link[32];
    if (!under_bytes)
        return NULL;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, PATH_MAX - 1);
    errno = before;
    if (bytes <= 0)
        return NULL;
    path[bytes] = 0;
    return matters(path) ? path : NULL;
}

/* Count a call; return whether it fails now. */
static int fails(enum kind kind, const char *path, int *half)
{
    static const char exempt[] = "/commits"; /* where the test itself marks what is committed */
    size_t length = strlen(path);
    *half = 0;
    if (!(orders->kinds >> kind & 1) || (length >= sizeof exempt && !strcmp(path + length - sizeof exempt + 1, exempt)))
        return 0;
    int64_t number = ++orders->calls;
    if (!orders->fail_at || number < orders->fail_at || number >= orders->fail_at + orders->fail_for)
        return 0;
    if (orders->error == -1 && kind != WRITE)
        return 0;
    static const char *const words[] = {"", "create", "write", "truncate", "sync", "rename", "unlink", "mkdir", "read", "open"};
    snprintf((char *)orders->last, sizeof orders->last, "%s %s", words[kind], path + under_bytes);
    orders->failed++;
    if (orders->error == -2)
        kill(getpid(), SIGKILL);
    if (orders->error == -1)
        return !(*half = 1);
    errno = (int)orders->error;
    return 1;
}

static void note(enum kind kind, const char *path, int64_t offset, const void *data, size_t bytes)
{
    size_t length = strlen(path);
    if (log_fd < 0 || (length > 4 && !strcmp(path + length - 4, "-shm")))
        return;
    struct head head = {kind, (uint32_t)length, offset, (int64_t)bytes};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, length}, {(void *)data, bytes}};
    int before = errno;
    if (writev(log_fd, parts, 3) != (ssize_t)(sizeof head + length + bytes))
        abort();
    errno = before;
}

/* Do `call` in turn, or have it fail; `done` notes a success of the value `got`. */
#define IN_TURN(type, failure, kind, path, call, done)                                                                  \
    do {                                                                                                                \
        int half;                                                                                                       \
        type got = failure;                                                                                             \
        pthread_mutex_lock(&turn);                                                                                      \
        if (!fails(kind, path, &half) && (got = call) != failure) {                                                     \
            done;                                                                                                       \
        }                                                                                                               \
        pthread_mutex_unlock(&turn);                                                                                    \
        (void)half;                                                                                                     \
        return got;                                                                                                     \
    } while (0)

static int opened(const char *path, int flags, mode_t mode)
{
    int is_new = flags & O_CREAT && faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW);
    IN_TURN(int, -1, is_new ? CREATE : OPEN, path, REAL(open)(path, flags, mode), {
        if (is_new)
            note(CREATE, path, 0, NULL, 0);
        else if (flags & O_TRUNC)
            note(TRUNCATE, path, 0, NULL, 0);
    });
}

#define OPEN_LIKE(name)                                                                                                 \
    int name(const char *path, int flags, ...)                                                                          \
    {                                                                                                                   \
        va_list rest;                                                                                                   \
        va_start(rest, flags);                                                                                          \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                         \
        va_end(rest);                                                                                                   \
        return matters(path) ? opened(path, flags, mode) : REAL(open)(path, flags, mode);                               \
    }
OPEN_LIKE(open)
OPEN_LIKE(open64)

ssize_t write(int fd, const void *data, size_t bytes)
{
    char buffer[PATH_MAX];
    const char *path = path_of(fd, buffer);
    if (!path)
        return REAL(write)(fd, data, bytes);
    IN_TURN(ssize_t, -1, WRITE, path, REAL(write)(fd, data, half && bytes > 1 ? bytes / 2 : bytes),
            note(WRITE, path, lseek(fd, 0, SEEK_CUR) - got, data, (size_t)got));
}

#define PWRITE_LIKE(name)                                                                                               \
    ssize_t name(int fd, const void *data, size_t bytes, off_t offset)                                                  \
    {                                                                                                                   \
        char buffer[PATH_MAX];                                                                                          \
        const char *path = path_of(fd, buffer);                                                                         \
        if (!path)                                                                                                      \
            return REAL(pwrite)(fd, data, bytes, offset);                                                               \
        IN_TURN(ssize_t, -1, WRITE, path, REAL(pwrite)(fd, data, half && bytes > 1 ? bytes / 2 : bytes, offset),        \
                note(WRITE, path, offset, data, (size_t)got));                                                          \
    }
PWRITE_LIKE(pwrite)
PWRITE_LIKE(pwrite64)

ssize_t read(int fd, void *data, size_t bytes)
{
    char buffer[PATH_MAX];
    const char *path = path_of(fd, buffer);
    if (!path)
        return REAL(read)(fd, data, bytes);
    IN_TURN(ssize_t, -1, READ, path, REAL(read)(fd, data, bytes), (void)0);
}

#define PREAD_LIKE(name)                                                                                                \
    ssize_t name(int fd, void *data, size_t bytes, off_t offset)                                                        \
    {                                                                                                                   \
        char buffer[PATH_MAX];                                                                                          \
        const char *path = path_of(fd, buffer);                                                                         \
        if (!path)                                                                                                      \
            return REAL(pread)(fd, data, bytes, offset);                                                                \
        IN_TURN(ssize_t, -1, READ, path, REAL(pread)(fd, data, bytes, offset), (void)0);                                \
    }
PREAD_LIKE(pread)
PREAD_LIKE(pread64)

#define FTRUNCATE_LIKE(name)                                                                                            \
    int name(int fd, off_t size)                                                                                        \
    {                                                                                                                   \
        char buffer[PATH_MAX];                                                                                          \
        const char *path = path_of(fd, buffer);                                                                         \
        if (!path)                                                                                                      \
            return REAL(ftruncate)(fd, size);                                                                           \
        IN_TURN(int, -1, TRUNCATE, path, REAL(ftruncate)(fd, size), note(TRUNCATE, path, size, NULL, 0));               \
    }
FTRUNCATE_LIKE(ftruncate)
FTRUNCATE_LIKE(ftruncate64)

#define TRUNCATE_LIKE(name)                                                                                             \
    int name(const char *path, off_t size)                                                                              \
    {                                                                                                                   \
        if (!matters(path))                                                                                             \
            return REAL(truncate)(path, size);                                                                          \
        IN_TURN(int, -1, TRUNCATE, path, REAL(truncate)(path, size), note(TRUNCATE, path, size, NULL, 0));              \
    }
TRUNCATE_LIKE(truncate)
TRUNCATE_LIKE(truncate64)

#define SYNC_LIKE(name)                                                                                                 \
    int name(int fd)                                                                                                    \
    {                                                                                                                   \
        char buffer[PATH_MAX];                                                                                          \
        const char *path = path_of(fd, buffer);                                                                         \
        if (!path)                                                                                                      \
            return REAL(name)(fd);                                                                                      \
        IN_TURN(int, -1, SYNC, path, REAL(name)(fd), note(SYNC, path, 0, NULL, 0));                                     \
    }
SYNC_LIKE(fsync)
SYNC_LIKE(fdatasync)

int rename(const char *from, const char *to)
{
    if (!matters(from))
        return REAL(rename)(from, to);
    IN_TURN(int, -1, RENAME, from, REAL(rename)(from, to), note(RENAME, from, 0, to, strlen(to)));
}

int unlink(const char *path)
{
    if (!matters(path))
        return REAL(unlink)(path);
    IN_TURN(int, -1, UNLINK, path, REAL(unlink)(path), note(UNLINK, path, 0, NULL, 0));
}

int mkdir(const char *path, mode_t mode)
{
    if (!matters(path))
        return REAL(mkdir)(path, mode);
    IN_TURN(int, -1, MKDIR, path, REAL(mkdir)(path, mode), note(MKDIR, path, 0, NULL, 0));
}
