#include "runtime/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOK = 100 };  // milliseconds between two looks for a signal while a write waits

// ---- the descriptors 0 to 2 --------------------------------------------------------------------

int dr_closed_standard(void) {
  for (int fd = 0; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0) return fd;
  return -1;
}

int dr_open_standard(void) {
  for (int fd; (fd = dr_closed_standard()) >= 0;) {
    int opened = open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY);  // gets the lowest number that is free
    if (opened < 0) return -errno;
  }
  return 0;
}

int dr_reopen(int fd, int mode) {
  char path[32];
  struct stat st;
  if (fstat(fd, &st) || (!S_ISFIFO(st.st_mode) && !isatty(fd))) return -1;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

int dr_readiness(int fd, unsigned events) {
  int ready = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = events};
  if (ready < 0 || !epoll_ctl(ready, EPOLL_CTL_ADD, fd, &event)) return ready;
  close(ready);  // a file, or a device that is always ready
  return -1;
}

// ---- a sink ------------------------------------------------------------------------------------

static bool sink_is_same_place(int a, int b) {
  struct stat x, y;
  return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void sink_open(struct dr_sink *s, int fd) {
  struct stat st;
  s->is_socket = !fstat(fd, &st) && S_ISSOCK(st.st_mode);
  int own = dr_reopen(fd, O_WRONLY);
  s->fd = own >= 0 ? own : fd;
  s->may_block = own < 0 && !s->is_socket;
  s->ready = dr_readiness(s->fd, EPOLLOUT);
}

struct dr_sink *dr_output_sink(struct dr_output *o, int fd) {
  struct dr_sink *s = &o->sinks[fd == STDERR_FILENO && !sink_is_same_place(STDOUT_FILENO, STDERR_FILENO)];
  if (s->fd < 0) sink_open(s, fd);
  return s;
}

static void sink_fail(struct dr_output *o, struct dr_sink *s, int error) {
  s->error = error;
  dr_buffer_free(&s->pending);
  if (error == EPIPE) {
    if (o->ends > DR_ENDS_LATER && o->rt) dr_signal(o->rt, SIGPIPE);
  } else if (s->counts || o->ends) {
    dprintf(STDERR_FILENO, "dockrun: error: cannot write the results: %s\n", strerror(error));
  }
}

// Whether a write may block although the descriptor has room: then it is given no more than a pipe takes at once.
static bool sink_is_ready(const struct dr_sink *s) {
  struct pollfd p = {.fd = s->fd, .events = POLLOUT};
  return !s->may_block || s->ready < 0 || poll(&p, 1, 0) > 0;
}

// Writes as much of what is pending as the descriptor takes now.
static void sink_push(struct dr_output *o, struct dr_sink *s) {
  while (dr_buffer_len(&s->pending) && !s->error && sink_is_ready(s)) {
    size_t len = dr_buffer_len(&s->pending);
    if (s->may_block && s->ready >= 0 && len > PIPE_BUF) len = PIPE_BUF;
    ssize_t n = s->is_socket ? send(s->fd, dr_buffer_data(&s->pending), len, MSG_DONTWAIT | MSG_NOSIGNAL)
                             : write(s->fd, dr_buffer_data(&s->pending), len);
    if (n > 0) {
      dr_buffer_drop(&s->pending, (size_t)n);
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    sink_fail(o, s, n < 0 ? errno : EIO);
  }
}

// Waits until no more than `rest` bytes are pending, or for a signal.
static void sink_drain(struct dr_output *o, struct dr_sink *s, size_t rest) {
  for (;;) {
    sink_push(o, s);
    if (s->error || dr_buffer_len(&s->pending) <= rest) return;
    if (o->rt && o->rt->signal) return;
    poll(&(struct pollfd){.fd = s->fd, .events = POLLOUT}, 1, LOOK);
  }
}

// ---- fibers that wait for room ----------------------------------------------------------------

void dr_room_enter(struct dr_wait *w) {
  struct dr_room *r = (struct dr_room *)w;
  r->next = r->output->waiting;
  r->output->waiting = r;
}

void dr_room_leave(struct dr_wait *w) {
  struct dr_room *r = (struct dr_room *)w;
  for (struct dr_room **at = &r->output->waiting; *at; at = &(*at)->next) {
    if (*at != r) continue;
    *at = r->next;
    return;
  }
}

bool dr_has_room(const struct dr_sink *s) { return s->error || dr_buffer_len(&s->pending) <= DR_HIGH_WATER; }

static void room_wake(struct dr_output *o, struct dr_sink *s) {
  for (struct dr_room *r = o->waiting, *next; dr_has_room(s) && r; r = next) {
    next = r->next;
    if (r->sink != s) continue;
    dr_room_leave(&r->wait);
    dr_wake(&r->wait);
  }
}

// ---- the loop ----------------------------------------------------------------------------------

static void sink_on_ready(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  struct dr_output *o = poll->data;
  struct dr_sink *s = &o->sinks[poll == &o->sinks[1].poll];
  sink_push(o, s);
  if (s->error || !dr_buffer_len(&s->pending)) uv_poll_stop(poll);
  room_wake(o, s);
}

static void sink_watch(struct dr_output *o, struct dr_sink *s) {
  if (!o->rt || s->ready < 0 || s->error || !dr_buffer_len(&s->pending)) return;
  if (!s->has_poll) s->has_poll = uv_poll_init(&o->rt->loop, &s->poll, s->ready) == 0;
  if (!s->has_poll) return;
  s->poll.data = o;
  if (!uv_is_active((uv_handle_t *)&s->poll)) uv_poll_start(&s->poll, UV_READABLE, sink_on_ready);
}

int dr_output_write(struct dr_output *o, struct dr_sink *s, const char *data, size_t len) {
  if (s->error == EPIPE && o->ends == DR_ENDS_LATER && o->rt) {
    o->ends = DR_ENDS_AT_WRITE;  // once: what cleans up may write too
    dr_signal(o->rt, SIGPIPE);
  }
  if (s->error) return -s->error;
  // Without memory for it, a sentence goes out at once or not at all.
  bool kept = !dr_buffer_add(&s->pending, data, len);
  if (!kept && (dr_buffer_len(&s->pending) || write(s->fd, data, len) != (ssize_t)len)) sink_fail(o, s, ENOMEM);
  sink_push(o, s);
  sink_watch(o, s);
  return -s->error;
}

static void sink_on_gone(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  struct dr_output *o = poll->data;
  struct dr_sink *s = &o->sinks[0];
  uv_poll_stop(poll);
  if (!s->error) sink_fail(o, s, EPIPE);
  room_wake(o, s);
}

void dr_output_end_with_reader(struct dr_output *o, enum dr_ends ends) {
  struct dr_sink *s = dr_output_sink(o, STDOUT_FILENO);
  o->ends = ends;
  if (ends != DR_ENDS_AT_ONCE || s->gone >= 0 || !o->rt) return;
  s->gone = dr_readiness(s->fd, 0);
  if (s->gone < 0 || uv_poll_init(&o->rt->loop, &s->gone_poll, s->gone)) return;
  s->gone_poll.data = o;
  uv_poll_start(&s->gone_poll, UV_READABLE, sink_on_gone);
  uv_unref((uv_handle_t *)&s->gone_poll);
}

int dr_output_drain(struct dr_output *o) {
  int error = 0;
  for (int i = 0; i < 2; i++) {
    struct dr_sink *s = &o->sinks[i];
    if (s->fd >= 0) sink_drain(o, s, 0);
    if (!error && (i == 0 || o->ends)) error = s->error;
  }
  return -error;
}

static void output_detach(struct dr_output *o) {
  o->rt->output = NULL;
  o->rt->end_output = NULL;
  o->rt = NULL;
  for (int i = 0; i < 2; i++) o->sinks[i].has_poll = false;
}

static void output_free(struct dr_output *o) {
  for (int i = 0; i < 2; i++) {
    struct dr_sink *s = &o->sinks[i];
    if (s->fd > STDERR_FILENO) close(s->fd);
    if (s->ready >= 0) close(s->ready);
    if (s->gone >= 0) close(s->gone);
    dr_buffer_free(&s->pending);
  }
  free(o);
}

static void output_end(struct dr_runtime *rt) {
  struct dr_output *o = rt->output;
  output_detach(o);
  if (o->owned) output_free(o);
}

void dr_output_attach(struct dr_output *o, struct dr_runtime *rt) {
  o->rt = rt;
  rt->output = o;
  rt->end_output = output_end;
}

static void output_init(struct dr_output *o) {
  *o = (struct dr_output){0};
  for (int i = 0; i < 2; i++) o->sinks[i].fd = o->sinks[i].ready = o->sinks[i].gone = -1;
  o->sinks[0].counts = true;
}

struct dr_output *dr_output_new(void) {
  struct dr_output *o = malloc(sizeof *o);
  if (o) output_init(o);
  return o;
}

// ---- C's own streams ---------------------------------------------------------------------------

static struct dr_output *process;

// A cookie is the descriptor's number. What print, io.write and fprintf write goes the same way as all results, so that
// nothing is lost or overtaken.
static ssize_t stdio_write(void *cookie, const char *data, size_t len) {
  struct dr_sink *s = dr_output_sink(process, (int)(intptr_t)cookie);
  if (!dr_output_write(process, s, data, len))
    sink_drain(process, s, process->exiting || !process->rt ? 0 : DR_HIGH_WATER);
  if (!s->error) return (ssize_t)len;
  errno = s->error;
  return 0;
}

static int stdio_seek(void *cookie, off64_t *offset, int whence) {
  off64_t at = lseek64((int)(intptr_t)cookie, *offset, whence);
  if (at < 0) return -1;
  *offset = at;
  return 0;
}

// Of a descriptor that another process made non-blocking: waits as if it were not.
static ssize_t stdio_read(void *cookie, char *data, size_t size) {
  int fd = (int)(intptr_t)cookie;
  for (;;) {
    ssize_t n = read(fd, data, size);
    if (n >= 0 || (errno != EAGAIN && errno != EINTR)) return n;
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1);
  }
}

static FILE *stdio_open(int fd, const char *mode, cookie_io_functions_t functions, int buffering) {
  FILE *file = fopencookie((void *)(intptr_t)fd, mode, functions);
  if (file) setvbuf(file, NULL, buffering, BUFSIZ);
  return file;
}

static void output_at_exit(void) {
  process->exiting = true;
  fflush(stdout);
  dr_output_drain(process);
}

struct dr_output *dr_output_of_process(void) {
  process = dr_output_new();
  if (!process) return NULL;
  cookie_io_functions_t writes = {.write = stdio_write, .seek = stdio_seek};
  FILE *out = stdio_open(STDOUT_FILENO, "w", writes, isatty(STDOUT_FILENO) ? _IOLBF : _IOFBF);
  FILE *err = stdio_open(STDERR_FILENO, "w", writes, _IONBF);
  if (out) stdout = out;
  if (err) stderr = err;
  if (fcntl(STDIN_FILENO, F_GETFL) & O_NONBLOCK && !isatty(STDIN_FILENO)) {
    FILE *in = stdio_open(STDIN_FILENO, "r", (cookie_io_functions_t){.read = stdio_read}, _IOFBF);
    if (in) stdin = in;
  }
  atexit(output_at_exit);
  return process;
}
