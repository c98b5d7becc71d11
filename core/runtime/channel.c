#include "runtime/channel.h"

void dr_channel_end(struct dr_channel *c) {
  c->ended = true;
  dr_wake(&c->reader);
  dr_wake(&c->writer);
}
