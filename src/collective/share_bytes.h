// Every worker gives all others some bytes, of a size that only it knows.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "collective/mailbox.h"

namespace poseidon::collective {

using Bytes = std::vector<std::byte>;

struct ShareOptions {
  Rank self{0};
  int workers = 1;
  std::uint32_t channel = 0;
  // Which exchange of the channel this is, the same at all workers. Each uses the channel's numbers 2 n and 2 n + 1.
  std::uint64_t number = 0;
  std::size_t bytes_max = 0;  // who announces more than this fails the exchange here: nothing larger is allocated
};

// To each other worker go 8 bytes with the size, and then the bytes. `done` gets what all have given, by rank, with an empty place for this
// worker's own; or, once all that borrows `own` has ended, what has failed. On the lane, as the mailbox.
using SharedFn = std::function<void(Result<std::vector<Bytes>>)>;
void share_bytes(Mailbox& mailbox, const ShareOptions& options, std::shared_ptr<const Bytes> own, SharedFn done);

}  // namespace poseidon::collective
