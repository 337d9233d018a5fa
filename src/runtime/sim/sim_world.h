// The world in virtual time: a clock that jumps from event to event, links with a rate and a latency, and faults on demand.
//
// One seed is one run, repeated exactly. The state machines that run here are the same object files that run on real event
// loops. A test builds a world, adds members, hangs the state machines on them and runs the clock.
//
// The link model: every member has one full-duplex link to a switch that never blocks. A frame leaves after those that the
// member sent before it (at the sender's rate), or beside those to other peers with `interleave`, travels for the latency, and
// queues again at the receiver's link. Between two members frames keep their order unless `shuffle_delay` is set; then each frame
// but those of control is late by its own random amount, as if every frame had a lane of its own. A member may have several lanes:
// each is a SimMember that reaches the same lane of its peers, and they share the member's link. All that happens happens one
// after the other, also on different lanes.
//
// Payloads are copied out of the sender's memory at the last moment that the Transport's contract allows (when `on_sent` is
// due), so a sender that changes borrowed memory too early shows up as a wrong sum.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "runtime/compute.h"
#include "runtime/runtime.h"
#include "runtime/sim/fair_link.h"
#include "runtime/sink_table.h"
#include "runtime/transport.h"

namespace poseidon::runtime::sim {

struct SimOptions {
  std::uint64_t seed = 1;
  double bytes_per_second = 1.25e9;                      // of each link, each direction
  std::map<Member, double> bytes_per_second_of;          // links that have another rate
  Duration latency = std::chrono::microseconds(50);      // one way
  // Frames to different peers, or by different lanes, share the sender's link as TCP connections do: packet by packet, each
  // connection with an equal part. Otherwise they leave whole, in the order of sending, which costs an event less for each.
  bool interleave = false;
  Duration task_jitter_max = std::chrono::nanoseconds(0);  // each posted task starts late by up to this
  Duration shuffle_delay_max = std::chrono::nanoseconds(0);  // each frame is late by up to this, and may be overtaken
  // When a member dies its peers see the connection close after this.
  Duration close_notice = std::chrono::milliseconds(1);
};

class SimMember;

// What a frame has beside its sizes.
struct Cargo {
  std::vector<Slice> payload;       // the sender's memory, until the frame leaves
  std::vector<std::byte> contents;  // from then on
  SentFn on_sent;
  bool left = false;                // the sender
  bool delayed = false;             // its sender is frozen, so it is in no queue
};

// A frame from `send` to its arrival. With a thousand members there are a million at a time: it is small, and in one piece.
struct Flight {
  SimMember* from = nullptr;
  SimMember* to = nullptr;
  Flight* next = nullptr;           // in the queue that it stands in
  Time time{};                      // when it is first in that queue and something happens
  Time left{};                      // the sender's link
  std::uint64_t order = 0;          // of sending
  Duration on_link{};               // what it takes from the sender's link
  std::size_t wire_bytes = 0;
  Epoch epoch{0};
  std::uint32_t credit = 0;
  Parts parts;
  std::unique_ptr<Cargo> cargo;     // null for most in a size-only world
  bool lost = false;
};

// Frames in the order in which something happens to them.
class FlightQueue {
 public:
  bool empty() const { return first_ == nullptr; }
  Flight* first() const { return first_; }
  void push(Flight* flight) {
    flight->next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = flight;
    last_ = flight;
  }
  Flight* pop() {
    Flight* const flight = first_;
    first_ = flight->next;
    // It comes next but one, and until then many others' frames: begin to fetch it.
    if (first_ != nullptr) __builtin_prefetch(first_->next);
    return flight;
  }

 private:
  Flight* first_ = nullptr;
  Flight* last_ = nullptr;
};

class SimWorld {
 public:
  explicit SimWorld(SimOptions options);
  ~SimWorld();

  // The member lives until the world goes.
  SimMember& add(Member id);
  SimMember& at(Member id);
  // Gives the member one more lane, which lives as long: lane 1, 2, ...; at() is lane 0.
  SimMember& add_lane(Member id);
  // Null where the member has no such lane.
  SimMember* find(Member id, std::size_t lane);

  Time now() const { return now_; }
  // Runs events until nothing is left, until `until`, or until `stop` is true. False if time ran out first.
  bool run_until(const std::function<bool()>& stop, Time until);
  void run_for(Duration duration);

  // The process dies: its tasks never run again, its peers see the connections close.
  void kill(Member id);
  // All links are as fast as this for what is sent from now on.
  void set_link_rate(double bytes_per_second) { options_.bytes_per_second = bytes_per_second; }
  // Frames between the two vanish without a notice (a pulled cable), from now on or until healed.
  void cut(Member a, Member b);
  void heal(Member a, Member b);
  // The member's process is stopped: its tasks and what arrives wait until it is resumed.
  void freeze(Member id);
  void resume(Member id);

  std::mt19937_64& random() { return random_; }
  // How many events have been run.
  std::uint64_t events() const { return events_; }
  // A digest of all events so far: the same seed must give the same.
  std::uint64_t event_digest() const { return digest_; }

 private:
  friend class SimMember;
  enum class Kind : std::uint8_t {
    kTask,       // the task in slot `index`
    kDeparture,  // the first of the `index`-th member's departures
    kPort,       // the first of its frames reaches the other side's link
    kArrival,    // the first that waits for its own link has passed it
    kStray,      // the frame in slot `index`, which keeps no order
  };
  // What is to happen lies still in a slot or a queue; only this, which is small, moves about in the heap. A link's frames go one after
  // the other, so that only the first of each queue needs a place in the heap: with a thousand members a million frames are under
  // way, and a heap of all of them would be in no cache.
  // Of two at the same time the one goes first whose cause was earlier: what a frame does is caused when it leaves its sender.
  struct Entry {
    Time time;
    Time cause;
    std::uint64_t order;  // of scheduling
    std::uint32_t index;
    Kind kind;
  };
  struct Slot {
    SimMember* owner = nullptr;
    Task task;
    Flight* flight = nullptr;
  };
  struct Later {
    bool operator()(const Entry& a, const Entry& b) const {
      if (a.time != b.time) return a.time > b.time;
      return a.cause != b.cause ? a.cause > b.cause : a.order > b.order;
    }
  };
  void schedule(Time time, SimMember& owner, Task task);
  void schedule_departure(Flight* flight);
  void schedule_port(Flight* flight);
  // After its own link, or now.
  void schedule_arrival(Time time, Flight* flight);
  std::uint32_t take_slot(SimMember& owner, Task task, Flight* flight);
  void push(const Entry& entry);
  // A frame with cargo, until it leaves.
  struct Due {
    Time cause;
    Flight* flight;
  };
  void push_first(const FlightQueue& queue, const SimMember& member, Kind kind);
  void push_first(const std::deque<Due>& queue, const SimMember& member);
  void run_slot(std::uint32_t index);
  void count(const SimMember& owner);
  bool step();
  Flight* take_flight();
  void give_back(Flight* flight);
  Duration jitter(Duration most);
  double rate_of(Member member) const;
  bool is_cut(Member a, Member b) const;

  SimOptions options_;
  std::mt19937_64 random_;
  Time now_{};
  std::uint64_t next_order_ = 0;
  std::uint64_t events_ = 0;
  std::uint64_t digest_ = 0xCBF29CE484222325u;
  std::vector<Entry> queue_;  // a heap, the next event in front
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::deque<Flight> flights_;         // all that were ever needed at a time
  std::vector<Flight*> free_flights_;  // of them
  std::map<Member, std::unique_ptr<SimMember>> members_;
  std::vector<SimMember*> by_id_;     // the same, of those whose ids are small: for the way of every frame
  std::vector<SimMember*> numbered_;  // in the order of their coming
  std::set<std::pair<Member, Member>> cuts_;
};

// One member's view: its lane's runtime, and its transport.
class SimMember : public Runtime, public Transport {
 public:
  // `number`: how many members came before.
  SimMember(SimWorld& world, Member id, std::uint32_t number) : world_(world), id_(id), number_(number), home_(this) {}
  // A further lane of that member.
  SimMember(SimMember& home, std::size_t lane)
      : world_(home.world_), id_(home.id_), number_(home.number_), lane_(lane), home_(&home) {}

  Time now() const override { return world_.now(); }
  void post(Task task) override;
  TimerId after(Duration delay, Task task) override;
  void cancel(TimerId timer) override;

  Member self() const override { return id_; }
  void set_listener(PeerListener listener) override { listener_ = std::move(listener); }
  void connect(Member peer, const std::vector<Endpoint>& endpoints, Duration deadline) override;
  void disconnect(Member peer) override;
  void set_epoch(Epoch epoch) override;
  void send(Destination to, Frame frame, SentFn on_sent) override;
  SinkId expect(Member from, const Tag& tag, Sink sink) override { return sinks_.expect(from, tag, std::move(sink)); }
  void revoke(SinkId sink) override { sinks_.revoke(sink); }
  void set_acceptor(wire::FrameType type, AcceptFn accept) override { sinks_.set_acceptor(type, std::move(accept)); }
  void set_body_handler(wire::FrameType type, BodyFn handle) override;
  void set_receipt_handler(ReceiptFn handle) override { on_receipt_ = std::move(handle); }
  Region register_memory(const Region& region) override { return region; }
  LinkBytes link_bytes(Member peer) const override;
  // With all peers together, over all lanes: what is at the other side, or on this one, by now.
  const LinkBytes& all_link_bytes() const { return home_->all_bytes_; }

  bool alive() const { return alive_; }
  // Whom this member refuses to hear, and why: set by a test, or by a protocol error.
  const std::vector<Error>& protocol_errors() const { return protocol_errors_; }

 private:
  friend class SimWorld;
  // What there is to know about a peer; made on first use.
  struct Link {
    bool up = false;
    LinkBytes bytes;
    std::optional<std::size_t> connection;  // its number at home, where frames interleave
  };
  Link& link(const SimMember& peer);
  bool is_up(const SimMember& peer) const { return peer.number_ < links_.size() && links_[peer.number_].up; }
  // Where frames interleave, at home: when the next of them leaves.
  void schedule_interleaved();
  void depart_interleaved();
  // The last byte leaves the sender: only of those with cargo.
  void leave(Flight* flight);
  void reach_port(Flight* flight);
  void reach(Flight* flight);
  void arrive(Flight* flight);
  // All parts land, or the link is closed.
  void deliver(Flight& flight);
  void link_down(Member peer, const Error& why);
  // A dead member's never run, a frozen one's are kept back.
  void run_task(Task task);
  void run_departure(Flight* flight);
  void run_arrival(Flight* flight);

  SimWorld& world_;
  Member id_;
  std::uint32_t number_;
  std::size_t lane_ = 0;
  SimMember* home_;                                     // lane 0: the member's link is there
  std::vector<std::unique_ptr<SimMember>> more_lanes_;  // at home
  bool alive_ = true;
  bool frozen_ = false;
  std::vector<Task> kept_back_;  // while frozen
  Epoch epoch_{0};
  Time out_free_{};  // when the link's outgoing side has sent everything so far
  Time in_free_{};
  std::uint64_t next_timer_ = 1;
  std::unordered_set<std::uint64_t> timers_;
  // At home, of all lanes:
  std::deque<SimWorld::Due> departures_;
  FlightQueue ports_;     // sent, until they reach the receiver's link
  FlightQueue arrivals_;  // wait for this member's link
  LinkBytes all_bytes_;
  FairLink<Flight*> interleaved_;
  std::size_t connections_ = 0;        // in it
  std::uint64_t interleaved_turn_ = 0;  // of the last time that was scheduled: those before it are void
  // Of this lane:
  std::vector<Link> links_;                          // by the peer's number
  std::map<Member, std::vector<Flight*>> paused_;    // streams that wait for a future epoch
  std::vector<Landing> landings_;                    // of the frame that is being delivered, kept for its memory
  SinkTable sinks_;
  std::map<wire::FrameType, BodyFn> body_handlers_;
  ReceiptFn on_receipt_;
  PeerListener listener_;
  std::vector<Error> protocol_errors_;
};

// Arithmetic in virtual time, charged at the given speeds. Results appear when the time has passed; one job runs at a time, as
// on one device.
class SimCompute : public Compute {
 public:
  struct Speeds {
    double sum_bytes_per_second = 5e9;
    double flops_per_second = 1e11;
    bool arithmetic = true;  // false: only the time passes, no number is computed
  };
  SimCompute(Runtime& runtime, Speeds speeds) : runtime_(runtime), speeds_(speeds) {}
  void sum(SumJob job, ComputeDoneFn done) override;
  void product(ProductJob job, ComputeDoneFn done) override;

 private:
  void finish_after(Duration cost, Task task);
  Runtime& runtime_;
  Speeds speeds_;
  Time free_{};
};

}  // namespace poseidon::runtime::sim
