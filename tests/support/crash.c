/* Kills at a chosen call: counts the calls of the weir process that make something durable or visible, lists them, and ends the process, or a server,
   at the one that is asked for. Built and preloaded by end_to_end/crash_shim.rs: cc -shared -fPIC -O1 -o crash.so crash.c

   Counted: fsync fdatasync rename link unlink (and their …at kin) ftruncate, pwrite on regular files, send sendto sendmsg write writev on sockets.
     CRASH_LOG=FILE     appends a line for each: number, call, path or peer, separated by tabs
     CRASH_ONLY=TEXT    counts only calls whose "<tab>call<tab>path or peer" holds the text
     CRASH_AT=N         what happens at call N:
     CRASH_ACT=before   … before it is made, or `after` it
     CRASH_STOP=1       the process is held still by SIGSTOP there instead of being ended, and goes on after a SIGCONT
     CRASH_PID=PID      SIGKILL goes to this process, and the call goes on a few milliseconds later; without it, to the process itself
   Threads count together: a number means the same call in every run only where calls do not race. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static int on;
static int log_fd = -1;
static long at = -1;
static int after_it;
static pid_t server;
static int stop;
static const char *only;
static atomic_long count;

__attribute__((constructor)) static void begin(void) {
  const char *name = strrchr(program_invocation_name, '/');
  name = name ? name + 1 : program_invocation_name;
  if (strncmp(name, "weir", 4) != 0)
    return;
  const char *text = getenv("CRASH_LOG");
  if (text)
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if ((text = getenv("CRASH_AT")))
    at = atol(text);
  after_it = (text = getenv("CRASH_ACT")) && strcmp(text, "after") == 0;
  if ((text = getenv("CRASH_PID")))
    server = (pid_t)atol(text);
  stop = getenv("CRASH_STOP") != NULL;
  only = getenv("CRASH_ONLY");
  on = log_fd >= 0 || at >= 0;
}

static void die(void) {
  if (server) {
    kill(server, SIGKILL);
    usleep(5000);
    return;
  }
  if (stop) {
    syscall(SYS_kill, getpid(), SIGSTOP);
    return;
  }
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;)
    pause();
}

/* Counts one call; true if the kill comes after it. */
static int met(const char *call, const char *target) {
  char line[4400];
  int error = errno;
  int length = snprintf(line, sizeof line, "\t%s\t%s", call, target);
  if (length >= (int)sizeof line)
    length = sizeof line - 1;
  if (only && !strstr(line, only)) {
    errno = error;
    return 0;
  }
  long number = atomic_fetch_add(&count, 1) + 1;
  if (log_fd >= 0) {
    char whole[4500];
    int size = snprintf(whole, sizeof whole, "%ld%s\n", number, line);
    syscall(SYS_write, log_fd, whole, (size_t)size);
  }
  if (number == at && !after_it)
    die();
  errno = error;
  return number == at && after_it;
}

static int met_fd(const char *call, int fd) {
  char link[64], path[4200];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  path[length < 0 ? 0 : length] = 0;
  return met(call, path);
}

/* The path of a name relative to a folder's descriptor. */
static int met_at(const char *call, int folder, const char *name) {
  if (folder == AT_FDCWD || name[0] == '/')
    return met(call, name);
  char link[64], path[8400];
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, path, 4000);
  if (length < 0)
    length = 0;
  snprintf(path + length, sizeof path - (size_t)length, "/%s", name);
  return met(call, path);
}

/* The other end of a socket, or false for what is no socket to another process. */
static int peer(int fd, char *text, size_t size) {
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  memset(&address, 0, sizeof address);
  int error = errno, found = 0;
  if (getpeername(fd, (struct sockaddr *)&address, &length) == 0) {
    char host[INET6_ADDRSTRLEN] = "";
    if (address.ss_family == AF_INET) {
      struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
      inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
      snprintf(text, size, "%s:%d", host, ntohs(v4->sin_port));
      found = 1;
    } else if (address.ss_family == AF_INET6) {
      struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
      inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
      snprintf(text, size, "[%s]:%d", host, ntohs(v6->sin6_port));
      found = 1;
    } else if (address.ss_family == AF_UNIX && length > sizeof(sa_family_t)) {
      snprintf(text, size, "%s", ((struct sockaddr_un *)&address)->sun_path);
      found = text[0] != 0;
    }
  }
  errno = error;
  return found;
}

static int met_socket(const char *call, int fd) {
  char text[200];
  return peer(fd, text, sizeof text) && met(call, text);
}

static int regular(int fd) {
  struct stat about;
  int error = errno, yes = fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
  errno = error;
  return yes;
}

/* CALL(type, name, parameters, arguments, when it counts): the real one, counted. */
#define CALL(type, name, parameters, arguments, counted)                                                                                       \
  type name parameters {                                                                                                                       \
    static type(*real) parameters;                                                                                                             \
    if (!real)                                                                                                                                 \
      real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                                                      \
    if (!on)                                                                                                                                   \
      return real arguments;                                                                                                                   \
    int then_die = counted;                                                                                                                    \
    type result = real arguments;                                                                                                              \
    if (then_die) {                                                                                                                            \
      int error = errno;                                                                                                                       \
      die();                                                                                                                                   \
      errno = error;                                                                                                                           \
    }                                                                                                                                          \
    return result;                                                                                                                             \
  }

CALL(int, fsync, (int fd), (fd), met_fd("fsync", fd))
CALL(int, fdatasync, (int fd), (fd), met_fd("fdatasync", fd))
CALL(int, rename, (const char *from, const char *to), (from, to), met("rename", to))
CALL(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), met_at("rename", b, to))
CALL(int, renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags), met_at("rename", b, to))
CALL(int, link, (const char *from, const char *to), (from, to), met("link", to))
CALL(int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), met_at("link", b, to))
CALL(int, unlink, (const char *path), (path), met("unlink", path))
CALL(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags), met_at("unlink", folder, path))
CALL(int, ftruncate, (int fd, off_t size), (fd, size), met_fd("ftruncate", fd))
CALL(int, ftruncate64, (int fd, off64_t size), (fd, size), met_fd("ftruncate", fd))
CALL(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t from), (fd, data, size, from), regular(fd) && met_fd("pwrite", fd))
CALL(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t from), (fd, data, size, from), regular(fd) && met_fd("pwrite", fd))
CALL(ssize_t, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags), met_socket("send", fd))
CALL(ssize_t, sendto, (int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length),
     (fd, data, size, flags, to, length), met_socket("sendto", fd))
CALL(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), met_socket("sendmsg", fd))
CALL(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), met_socket("write", fd))
CALL(ssize_t, writev, (int fd, const struct iovec *parts, int number), (fd, parts, number), met_socket("writev", fd))
