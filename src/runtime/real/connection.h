// One trusted link: frames out of the senders' memory, frames into the receivers'.
//
// Out: header, table and payload slices of several frames go to the stream in one gathering write; over plain TCP nothing is
// copied. In: while a payload arrives, one scattering read fills the rest of its sinks and takes the next header along, so a
// stream of pieces costs about one system call each. Small frames come through `inbox_` and are copied from there.
//
// Lane only.
#pragma once

#include <sys/uio.h>

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/real/stream.h"
#include "runtime/sink_table.h"
#include "runtime/transport.h"
#include "wire/frame.h"

namespace poseidon::runtime::real {

// What a connection tells its transport.
class ConnectionOwner {
 public:
  virtual ~ConnectionOwner() = default;
  virtual SinkTable& sinks() = 0;
  virtual Epoch epoch() const = 0;
  // A whole data frame is in place (before the parts' owners hear of it), or a frame of any other type has come.
  virtual void on_frame(Member from, const wire::FrameHeader& header, std::span<const wire::PartHeader> data_parts) = 0;
  virtual void on_body(Member from, const wire::FrameHeader& header, std::vector<std::byte> body) = 0;
  // The connection is closed; no more calls follow.
  virtual void on_closed(Member peer, const Error& why) = 0;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `identity` is what goes into each frame's header: job and sender.
  Connection(std::unique_ptr<Stream> stream, ConnectionOwner& owner, Member peer, std::uint64_t job, Member self);

  void start();
  void send(Frame frame, Epoch epoch, SentFn on_sent);
  // Looks again at a stream that was paused for a future epoch.
  void resume();
  // Closes once everything queued is out, without telling the owner; afterwards calls `done`.
  void finish(std::function<void()> done);
  // Closes now and tells the owner.
  void fail(const Error& why);
  // Closes now and tells nobody.
  void abandon();

  const LinkBytes& bytes() const { return bytes_; }

 private:
  struct Outgoing {
    std::array<std::byte, wire::kHeaderBytes> header;
    std::vector<std::byte> table;
    std::vector<Slice> payload;
    SentFn on_sent;
    // What has not been written yet: the header is slice 0, the table 1, the payload from 2 on.
    std::size_t slice = 0;
    std::size_t offset = 0;

    std::size_t slices() const { return 2 + payload.size(); }
    iovec rest_of(std::size_t i) const;
  };
  // A stretch of memory that arriving bytes fill, and the landing whose revocation diverts it.
  struct Target {
    std::byte* data;
    std::size_t bytes;
    std::size_t landing;
  };
  enum class State { kHeader, kTable, kPayload, kPaused };

  void wait_readable();
  void wait_writable();
  void read();
  void write();
  void advance_written(std::size_t bytes);
  // Fills the current frame's targets with bytes that came through the inbox or a direct read.
  void fill(std::size_t bytes);
  Status parse();
  Status begin_frame();
  Status begin_payload(std::span<const std::byte> table);
  void end_frame();
  void divert_revoked();
  void close();

  const std::unique_ptr<Stream> stream_;
  ConnectionOwner& owner_;
  const Member peer_;
  const std::uint64_t job_;
  const Member self_;
  bool open_ = true;
  LinkBytes bytes_;

  std::deque<Outgoing> out_;
  bool writing_ = false;           // in write(): send() only queues
  bool waits_writable_ = false;    // write() comes by itself: when the socket has room, or at the end of this turn
  std::function<void()> finished_;

  State state_ = State::kHeader;
  std::vector<std::byte> inbox_;   // bytes [inbox_begin_, inbox_end_) are read but not parsed
  std::size_t inbox_begin_ = 0;
  std::size_t inbox_end_ = 0;
  std::size_t inbox_limit_;        // how much to read ahead; small within a stream of large frames
  wire::FrameHeader header_;
  std::vector<wire::PartHeader> parts_;
  std::vector<std::byte> table_;
  std::size_t table_filled_ = 0;
  std::vector<Landing> landings_;
  std::vector<Target> targets_;
  std::size_t target_ = 0;         // the first that is not full
  std::vector<std::byte> body_;    // of a frame that is no data
  std::vector<std::byte> drain_;   // where unwanted bytes go
};

}  // namespace poseidon::runtime::real
