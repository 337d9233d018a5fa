// The transports of one member's lanes as one: a peer is up when its links on all lanes are, and down when the first of them breaks.
//
// For those who look after members and not after messages: frames are sent and received on the home lane (the first), as are the
// frames of the coordinator, who has no other lane. Other lanes' own frames do not pass through here, and are no sign of life.
//
// Home lane only. What concerns the other lanes is posted to them.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "runtime/transport.h"

namespace poseidon::runtime {

// One lane's ends of its links. Both outlive the bundle.
struct LaneEnd {
  Runtime* runtime = nullptr;
  Transport* transport = nullptr;
};

class LaneBundle : public Transport {
 public:
  // The home lane first.
  explicit LaneBundle(std::vector<LaneEnd> lanes);
  ~LaneBundle() override;

  Member self() const override { return home().self(); }
  // Takes the listeners of all lanes. on_alive tells of the home lane only. Callbacks may not destroy the bundle.
  void set_listener(PeerListener listener) override;
  // Each lane by the endpoints that are its own.
  void connect(Member peer, const std::vector<Endpoint>& endpoints, Duration deadline) override;
  void disconnect(Member peer) override;
  void set_epoch(Epoch epoch) override;

  void send(Destination to, Frame frame, SentFn on_sent) override { home().send(to, std::move(frame), std::move(on_sent)); }
  SinkId expect(Member from, const Tag& tag, Sink sink) override { return home().expect(from, tag, std::move(sink)); }
  void revoke(SinkId sink) override { home().revoke(sink); }
  void set_acceptor(wire::FrameType type, AcceptFn accept) override { home().set_acceptor(type, std::move(accept)); }
  void set_body_handler(wire::FrameType type, BodyFn handle) override { home().set_body_handler(type, std::move(handle)); }
  void set_receipt_handler(ReceiptFn handle) override { home().set_receipt_handler(std::move(handle)); }
  Region register_memory(const Region& region) override { return home().register_memory(region); }
  // Of the home lane.
  LinkBytes link_bytes(Member peer) const override { return home().link_bytes(peer); }

 private:
  struct Links {
    std::size_t up = 0;   // lanes
    bool lost = false;    // told; what other lanes report after that is no news
  };

  Transport& home() const { return *lanes_.front().transport; }
  // The links of the coordinator are on one lane, those of others on all.
  std::size_t lanes_to(Member peer) const { return peer == kCoordinator ? 1 : lanes_.size(); }
  void on_up(Member peer);
  void on_down(std::size_t lane, Member peer, const Error& why);
  // On the other lanes, in the order of the calls; not after the bundle has gone.
  void post(std::size_t lane, std::function<void(Transport&)> task);

  std::vector<LaneEnd> lanes_;
  PeerListener listener_;
  std::map<Member, Links> links_;
  // Set to false at home by the destructor: what other lanes have posted there looks here first.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::runtime
