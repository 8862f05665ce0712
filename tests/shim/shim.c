/* Turns /dev/spidevB.C and /dev/i2c-N into talks with a simulator, below the real spidev and smbus2.

   LD_PRELOAD this library and name the simulator's Unix socket in WATTHERD_SHIM_SOCKET. An opened device is one
   connection (SOCK_SEQPACKET), every call is one message there and one back. What the kernel keeps for each open file
   (mode, speed, slave address) the simulator keeps for each connection. So close(), dup() and fork() are those of any
   descriptor, and nothing is remembered here by number: a descriptor is ours if the simulator is at its other end. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/i2c-dev.h>
#include <linux/i2c.h>
#include <linux/spi/spidev.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The messages, in the byte order of the machine; tests/shim/simulators.py has the same. */
struct question { uint32_t number, call; uint64_t argument; }; /* then bytes */
struct answer { uint32_t number; int32_t result; };            /* a negative result is an errno; then bytes */
enum { CALL_OPEN = 1, CALL_READ = 2, CALL_WRITE = 3 };         /* any other call is the number of an ioctl */
enum { MOST_BYTES = 32 * 1024 };

/* Forked processes may share a connection, so the turn and the numbers are in memory that they share as well. */
struct turn { pthread_mutex_t mutex; uint32_t number; };

static struct turn *turn;
static struct sockaddr_un simulator = {.sun_family = AF_UNIX};

__attribute__((constructor)) static void prepare(void)
{
    const char *path = getenv("WATTHERD_SHIM_SOCKET");
    if (!path || strlen(path) >= sizeof simulator.sun_path)
        return;
    turn = mmap(NULL, sizeof *turn, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (turn == MAP_FAILED)
        abort();
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST); /* whoever holds it may be killed */
    pthread_mutex_init(&turn->mutex, &kind);
    strcpy(simulator.sun_path, path);
}

static int is_ours(int fd)
{
    if (!simulator.sun_path[0])
        return 0;
    int before = errno;
    struct sockaddr_un peer = {0};
    socklen_t size = sizeof peer;
    int ours = !getpeername(fd, (struct sockaddr *)&peer, &size) && peer.sun_family == AF_UNIX
               && !strncmp(peer.sun_path, simulator.sun_path, sizeof peer.sun_path);
    errno = before;
    return ours;
}

/* Ask the simulator and wait; return its result, or -1 with errno as the kernel would. */
static long ask(int fd, uint32_t call, uint64_t argument, const void *in, size_t in_size, void *out, size_t out_size)
{
    if (pthread_mutex_lock(&turn->mutex) == EOWNERDEAD)
        pthread_mutex_consistent(&turn->mutex);
    struct question question = {++turn->number, call, argument};
    struct answer answer = {0};
    struct iovec to[] = {{&question, sizeof question}, {(void *)in, in_size}};
    struct iovec from[] = {{&answer, sizeof answer}, {out, out_size}};
    struct msghdr sent = {.msg_iov = to, .msg_iovlen = 2}, got;
    ssize_t size = sendmsg(fd, &sent, MSG_NOSIGNAL);
    while (size > 0) {
        got = (struct msghdr){.msg_iov = from, .msg_iovlen = 2};
        size = recvmsg(fd, &got, 0);
        if (size < 0 && errno == EINTR)
            size = 1;
        else if (size > 0 && answer.number == question.number)
            break; /* any other number answers somebody who was killed while waiting */
    }
    pthread_mutex_unlock(&turn->mutex);
    if (size <= 0 || got.msg_flags & MSG_TRUNC) {
        errno = EIO;
        return -1;
    }
    if (answer.result < 0) {
        errno = -answer.result;
        return -1;
    }
    return answer.result;
}

static int is_device(const char *path)
{
    return simulator.sun_path[0] && path && (!strncmp(path, "/dev/spidev", 11) || !strncmp(path, "/dev/i2c-", 9));
}

static int open_device(const char *path, int flags)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | (flags & O_CLOEXEC ? SOCK_CLOEXEC : 0), 0);
    if (fd < 0)
        return -1;
    int failed = 0;
    if (connect(fd, (struct sockaddr *)&simulator, sizeof simulator))
        failed = ENOENT; /* the simulator is gone, so the device is */
    else if (ask(fd, CALL_OPEN, 0, path, strlen(path), NULL, 0) < 0)
        failed = errno;
    if (!failed)
        return fd;
    close(fd);
    errno = failed;
    return -1;
}

/* One message of several transfers: chip select stays low between them unless cs_change says otherwise. */
static long transfer(int fd, const struct spi_ioc_transfer *all, size_t count)
{
    static __thread unsigned char in[MOST_BYTES], out[MOST_BYTES];
    size_t in_size = 0, out_size = 0;
    for (size_t n = 0; n < count; n++) {
        struct spi_ioc_transfer head = all[n];
        if (in_size + sizeof head + head.len > MOST_BYTES) {
            errno = EMSGSIZE;
            return -1;
        }
        memcpy(in + in_size, &head, sizeof head);
        in_size += sizeof head;
        if (head.tx_buf)
            memcpy(in + in_size, (void *)(uintptr_t)head.tx_buf, head.len);
        else
            memset(in + in_size, 0, head.len);
        in_size += head.len;
        out_size += head.len;
    }
    long result = ask(fd, SPI_IOC_MESSAGE(0), count, in, in_size, out, out_size);
    const unsigned char *next = out;
    for (size_t n = 0; result >= 0 && n < count; next += all[n++].len)
        if (all[n].rx_buf)
            memcpy((void *)(uintptr_t)all[n].rx_buf, next, all[n].len);
    return result;
}

static long smbus(int fd, const struct i2c_smbus_ioctl_data *wish)
{
    struct { uint8_t read_write, command, size, data[I2C_SMBUS_BLOCK_MAX + 2]; } message
        = {wish->read_write, wish->command, wish->size, {0}};
    size_t width = wish->size == I2C_SMBUS_QUICK ? 0
                   : wish->size == I2C_SMBUS_BYTE || wish->size == I2C_SMBUS_BYTE_DATA ? sizeof wish->data->byte
                   : wish->size == I2C_SMBUS_WORD_DATA || wish->size == I2C_SMBUS_PROC_CALL ? sizeof wish->data->word
                                                                                            : sizeof message.data;
    if (wish->data)
        memcpy(message.data, wish->data, width);
    uint8_t data[sizeof message.data] = {0};
    long result = ask(fd, I2C_SMBUS, 0, &message, sizeof message, data, sizeof data);
    int answers = wish->read_write == I2C_SMBUS_READ || wish->size == I2C_SMBUS_PROC_CALL
                  || wish->size == I2C_SMBUS_BLOCK_PROC_CALL;
    if (result >= 0 && wish->data && answers)
        memcpy(wish->data, data, width);
    return result;
}

static long combined(int fd, const struct i2c_rdwr_ioctl_data *wish)
{
    static __thread unsigned char in[MOST_BYTES], out[MOST_BYTES];
    size_t in_size = 0, out_size = 0;
    for (uint32_t n = 0; n < wish->nmsgs; n++) {
        const struct i2c_msg *msg = &wish->msgs[n];
        uint16_t head[] = {msg->addr, msg->flags, msg->len};
        if (in_size + sizeof head + msg->len > MOST_BYTES || out_size + msg->len > MOST_BYTES) {
            errno = EMSGSIZE;
            return -1;
        }
        memcpy(in + in_size, head, sizeof head);
        in_size += sizeof head;
        if (msg->flags & I2C_M_RD) {
            out_size += msg->len;
        } else {
            memcpy(in + in_size, msg->buf, msg->len);
            in_size += msg->len;
        }
    }
    long result = ask(fd, I2C_RDWR, wish->nmsgs, in, in_size, out, out_size);
    const unsigned char *next = out;
    for (uint32_t n = 0; result >= 0 && n < wish->nmsgs; n++)
        if (wish->msgs[n].flags & I2C_M_RD) {
            memcpy(wish->msgs[n].buf, next, wish->msgs[n].len);
            next += wish->msgs[n].len;
        }
    return result;
}

static long device_ioctl(int fd, unsigned long request, void *argument)
{
    if (request == I2C_SMBUS)
        return smbus(fd, argument);
    if (request == I2C_RDWR)
        return combined(fd, argument);
    if (request == I2C_FUNCS) {
        uint64_t functions = 0;
        long result = ask(fd, request, 0, NULL, 0, &functions, sizeof functions);
        *(unsigned long *)argument = functions;
        return result;
    }
    if (_IOC_TYPE(request) != SPI_IOC_MAGIC) /* I2C_SLAVE, I2C_RETRIES and their like: the argument is a number */
        return ask(fd, request, (uintptr_t)argument, NULL, 0, NULL, 0);
    if (_IOC_NR(request) == 0)
        return transfer(fd, argument, _IOC_SIZE(request) / sizeof(struct spi_ioc_transfer));
    if (_IOC_DIR(request) & _IOC_READ)
        return ask(fd, request, 0, NULL, 0, argument, _IOC_SIZE(request));
    return ask(fd, request, 0, argument, _IOC_SIZE(request), NULL, 0);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int ioctl(int fd, unsigned long request, ...)
{
    static __typeof__(&ioctl) real;
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    request = (uint32_t)request;
    int is_bus = _IOC_TYPE(request) == SPI_IOC_MAGIC || (request >= I2C_RETRIES && request <= I2C_SMBUS);
    if (is_bus && is_ours(fd))
        return (int)device_ioctl(fd, request, argument);
    if (!real)
        real = REAL(ioctl);
    return real(fd, request, argument);
}

ssize_t read(int fd, void *buffer, size_t size)
{
    static __typeof__(&read) real;
    if (is_ours(fd))
        return ask(fd, CALL_READ, size, NULL, 0, buffer, size);
    if (!real)
        real = REAL(read);
    return real(fd, buffer, size);
}

ssize_t write(int fd, const void *buffer, size_t size)
{
    static __typeof__(&write) real;
    if (is_ours(fd))
        return ask(fd, CALL_WRITE, size, buffer, size, NULL, 0);
    if (!real)
        real = REAL(write);
    return real(fd, buffer, size);
}

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }
#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        MODE(flags)                                                                                                    \
        return is_device(path) ? open_device(path, flags) : REAL(name)(path, flags, mode);                             \
    }
#define OPENAT(name)                                                                                                   \
    int name(int directory, const char *path, int flags, ...)                                                          \
    {                                                                                                                  \
        MODE(flags)                                                                                                    \
        return is_device(path) ? open_device(path, flags) : REAL(name)(directory, path, flags, mode);                  \
    }
#define OPEN_CHECKED(name) /* what glibc makes of open() in programs built with _FORTIFY_SOURCE */                     \
    int name(const char *path, int flags);                                                                             \
    int name(const char *path, int flags)                                                                              \
    {                                                                                                                  \
        return is_device(path) ? open_device(path, flags) : REAL(name)(path, flags);                                   \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
OPEN_CHECKED(__open_2)
OPEN_CHECKED(__open64_2)
