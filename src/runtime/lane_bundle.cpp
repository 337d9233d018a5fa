#include "runtime/lane_bundle.h"

#include <utility>

#include "base/text.h"

namespace poseidon::runtime {

LaneBundle::LaneBundle(std::vector<LaneEnd> lanes) : lanes_(std::move(lanes)) {
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) {
    const auto at_home = [home = lanes_.front().runtime, alive = alive_](std::function<void()> task) {
      home->post([alive, task = std::move(task)] {
        if (*alive) task();
      });
    };
    post(lane, [this, lane, at_home](Transport& transport) {
      transport.set_listener(
          {.on_up = [this, at_home](Member peer) { at_home([this, peer] { on_up(peer); }); },
           .on_down = [this, lane, at_home](Member peer, const Error& why) { at_home([this, lane, peer, why] { on_down(lane, peer, why); }); },
           .on_alive = {}});
    });
  }
}

LaneBundle::~LaneBundle() {
  *alive_ = false;
  home().set_listener({});
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) {
    post(lane, [](Transport& transport) { transport.set_listener({}); });
  }
}

void LaneBundle::post(std::size_t lane, std::function<void(Transport&)> task) {
  lanes_[lane].runtime->post([transport = lanes_[lane].transport, task = std::move(task)] { task(*transport); });
}

void LaneBundle::set_listener(PeerListener listener) {
  listener_ = std::move(listener);
  home().set_listener({.on_up = [this](Member peer) { on_up(peer); },
                       .on_down = [this](Member peer, const Error& why) { on_down(0, peer, why); },
                       .on_alive = listener_.on_alive});
}

void LaneBundle::on_up(Member peer) {
  Links& links = links_[peer];
  if (links.lost || ++links.up < lanes_to(peer)) return;
  if (listener_.on_up) listener_.on_up(peer);
}

void LaneBundle::on_down(std::size_t lane, Member peer, const Error& why) {
  Links& links = links_[peer];
  if (std::exchange(links.lost, true)) return;
  if (listener_.on_down) {
    listener_.on_down(peer, lane == 0 ? why : Error{why.code, base::concat("lane ", lane, ": ", why.message)});
  }
  // The rest of a peer is of no use, and it should not think otherwise.
  disconnect(peer);
}

void LaneBundle::connect(Member peer, const std::vector<Endpoint>& endpoints, Duration deadline) {
  for (std::size_t lane = 0; lane < lanes_to(peer); ++lane) {
    std::vector<Endpoint> own;
    for (const Endpoint& endpoint : endpoints) {
      if (endpoint.lane == Lane{static_cast<std::uint32_t>(lane)}) own.push_back(endpoint);
    }
    if (own.empty()) {
      return on_down(lane, peer, Error{ErrorCode::kInvalid, base::concat("member ", index(peer), " does not say where its lane ", lane, " is")});
    }
    if (lane == 0) {
      home().connect(peer, own, deadline);
    } else {
      post(lane, [peer, own, deadline](Transport& transport) { transport.connect(peer, own, deadline); });
    }
  }
}

void LaneBundle::disconnect(Member peer) {
  home().disconnect(peer);
  for (std::size_t lane = 1; lane < lanes_to(peer); ++lane) {
    post(lane, [peer](Transport& transport) { transport.disconnect(peer); });
  }
}

void LaneBundle::set_epoch(Epoch epoch) {
  home().set_epoch(epoch);
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) {
    post(lane, [epoch](Transport& transport) { transport.set_epoch(epoch); });
  }
}

}  // namespace poseidon::runtime
