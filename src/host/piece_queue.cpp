#include "host/piece_queue.h"

#include <algorithm>

namespace poseidon::host {
namespace {

// Between two looks at the sockets: of 64 KiB each, some tens of microseconds.
constexpr int kPiecesPerTurn = 4;

}  // namespace

void PieceQueue::add(Work work) {
  works_.emplace(Key{work.priority, next_sequence_++}, Job{std::move(work), 0});
  schedule();
}

void PieceQueue::schedule() {
  if (scheduled_ || busy_ || works_.empty()) return;
  scheduled_ = true;
  runtime_.post([this, alive = alive_] {
    if (!*alive) return;
    scheduled_ = false;
    turn();
  });
}

void PieceQueue::turn() {
  for (int piece = 0; piece < kPiecesPerTurn && !busy_ && !works_.empty(); ++piece) {
    const auto& [key, job] = *works_.begin();
    const std::size_t begin = job.begin;
    const std::size_t end = std::min(job.work.count, begin + job.work.per_piece);
    busy_ = true;
    const auto then = [this, alive = alive_, key = key, end] {
      if (!*alive) return;
      busy_ = false;
      on_piece(key, end);
      schedule();
    };
    if (begin == end) {
      then();
    } else {
      // Its own copy: the work may be dropped while the piece is being done.
      const auto work = job.work.piece;
      work(begin, end, then);
    }
  }
  schedule();
}

void PieceQueue::on_piece(const Key& key, std::size_t end) {
  const auto found = works_.find(key);
  if (found == works_.end()) return;
  found->second.begin = end;
  if (end < found->second.work.count) return;
  const auto done = std::move(found->second.work.done);
  works_.erase(found);
  done();
}

}  // namespace poseidon::host
