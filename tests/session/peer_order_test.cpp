#include "session/peer_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace poseidon::session {
namespace {

using runtime::Priority;
using runtime::SendClass;

struct Waiting {
  Turn turn;
  bool stands = false;
  std::size_t place = 0;
};

TEST(Urgency, ComparesAsThePriorityDoes) {
  std::vector<Priority> priorities;
  for (const Iteration iteration : {Iteration{0}, Iteration{1}, Iteration{1} << 40}) {
    for (const std::uint32_t layer : {0u, 1u, 255u, 256u, 0xFFFFFFFFu}) {
      for (const SendClass send_class : {SendClass::kControl, SendClass::kSum, SendClass::kPush}) {
        priorities.push_back({iteration, layer, send_class});
      }
    }
  }
  for (const Priority& a : priorities) {
    for (const Priority& b : priorities) EXPECT_EQ(Urgency::of(a) <=> Urgency::of(b), a <=> b);
  }
}

TEST(PeerOrder, TheFirstIsTheOneThatALookAtAllFinds) {
  std::mt19937_64 random(1);
  std::vector<Waiting> peers(50);
  PeerOrder<Waiting> order;
  for (int step = 0; step < 20'000; ++step) {
    Waiting& peer = peers[random() % peers.size()];
    // Few values, so that many are equal in all but the last.
    const Turn turn{{random() % 3, random() % 3}, random() % 3, static_cast<std::uint32_t>(&peer - peers.data())};
    const bool leaves = peer.stands && random() % 2 == 0;
    if (leaves) {
      order.remove(&peer);
    } else if (peer.stands) {
      order.move(&peer, turn);
    } else {
      order.insert(&peer, turn);
    }
    peer.stands = !leaves;
    peer.turn = turn;
    Waiting* least = nullptr;
    Waiting* least_odd = nullptr;
    for (Waiting& other : peers) {
      if (!other.stands) continue;
      if (least == nullptr || other.turn < least->turn) least = &other;
      if (other.turn.member % 2 == 1 && (least_odd == nullptr || other.turn < least_odd->turn)) least_odd = &other;
    }
    ASSERT_EQ(order.first(), least) << "step " << step;
    ASSERT_EQ(order.empty(), least == nullptr);
    if (least != nullptr) {
      ASSERT_EQ(order.first_turn(), least->turn);
    }
    ASSERT_EQ(order.first_that([](const Waiting& other) { return other.turn.member % 2 == 1; }).second, least_odd);
  }
}

}  // namespace
}  // namespace poseidon::session
