#include "cluster/messages.h"

#include <gtest/gtest.h>

#include <random>

#include "support/sim_job.h"

namespace poseidon::cluster {
namespace {

Result<Message> decode_text(const std::string& text) { return decode(std::as_bytes(std::span(text.data(), text.size()))); }

std::vector<Message> one_of_each() {
  const MemberInfo info{Member{3}, Rank{3}, "node-\"b\"", 4711, {{"127.0.0.1", 4000}, {"10.0.0.1", 65535, runtime::Lane{1}}}, 2, std::nullopt, "boot 7", "5:99"};
  MemberInfo server = info;
  server.rank = Rank{4};
  server.server = 0;
  return {Join{info, test::small_model(), "ab12", 300, true, true}, Renew{test::small_model(), 7, {TensorId{0}, TensorId{2}}}, Linked{}, Speeds{{1e9, 1e-5, 2e10, 5e9}}, Ready{},
          Profiled{{42, 0.5, 0.125, {{0.1, 0.2}, {0, 0}}}}, Settled{}, Note{"{\"x\": 1}"}, Gather{3, "0.5"}, Paused{2, 17}, Leave{7},
          Failed{ErrorCode::kInvalid, "no such\nfile"}, PeerLost{Rank{2}, "closed"}, OpenEpoch{Epoch{1}, {info, server}}, Measure{3, true},
          UsePlan{"{}", 1 << 20, 120, true, std::nullopt}, UsePlan{"{}", 1, {}, false, test::small_model()}, Start{}, Gathered{3, {"0.5", ""}},
          Pause{2}, HoldBefore{19}, GoOn{}, StopAfter{18}, Left{"rank 1 (pid 7 on b)", 7}, Goodbye{}, Abort{ErrorCode::kPeerLost, "rank 2"}, Alive{}};
}

TEST(Messages, ComeBackAsTheyWere) {
  for (const Message& message : one_of_each()) {
    const std::string text = encode(message);
    const Result<Message> decoded = decode_text(text);
    ASSERT_TRUE(decoded.ok()) << text << decoded.error().message;
    EXPECT_EQ(decoded->index(), message.index());
    EXPECT_EQ(encode(*decoded), text);
  }
  const auto join = std::get<Join>(decode_text(encode(one_of_each()[0])).value());
  EXPECT_EQ(join.self.text(), "rank 3 (pid 4711 on node-\"b\")");
  EXPECT_EQ(join.self.machine, "boot 7");
  EXPECT_EQ(join.self.memory, "5:99");
  EXPECT_EQ(join.model.tensors[1].shape, (std::vector<std::int64_t>{16, 36}));
  EXPECT_EQ(join.model.layers[1].factor_rows, 4u);
  EXPECT_EQ(std::get<OpenEpoch>(decode_text(encode(one_of_each()[13])).value()).members[1].text(), "server 0 (pid 4711 on node-\"b\")");
  EXPECT_EQ(std::get<UsePlan>(decode_text(encode(one_of_each()[16])).value()).model->tensors.size(), 3u);
  EXPECT_EQ(join.self.lanes, 2u);
  EXPECT_EQ(join.self.endpoints[1].lane, runtime::Lane{1});
}

TEST(Messages, AMemberHasOneToSixteenLanesAndNamesNoOther) {
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"lanes\":2", "\"lanes\":0"}, {"\"lanes\":2", "\"lanes\":17"}, {"\"lanes\":2", "\"lanes\":1"}, {"\"lane\":1", "\"lane\":2"}, {"\"lane\":1", "\"lane\":-1"}}) {
    std::string text = encode(one_of_each()[0]);
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from << " in " << text;
    text.replace(at, from.size(), to);
    EXPECT_FALSE(decode_text(text).ok()) << to;
  }
}

TEST(Messages, ThatAreNoneAreRefusedWithoutAThrow) {
  for (const char* text : {"", "{", "[]", "7", "{}", R"({"kind": "dance"})", R"({"kind": 3})", R"({"kind": "paused"})",
                           R"({"kind": "paused", "number": 1, "limit": -1})", R"({"kind": "paused", "number": 1, "limit": 1.5})",
                           R"({"kind": "profiled", "iteration": 1, "iteration_seconds": -1, "waited_seconds": 0, "layers": []})",
                           R"({"kind": "profiled", "iteration": 1, "iteration_seconds": 1, "waited_seconds": 0, "layers": [[1]]})",
                           R"({"kind": "profiled", "iteration": 1, "iteration_seconds": 1, "waited_seconds": 0, "layers": [[1, -2]]})",
                           R"({"kind": "profiled", "iteration": 1, "iteration_seconds": 1, "waited_seconds": 0, "layers": [["a", 2]]})",
                           R"({"kind": "measure", "shift": 70000, "arithmetic": false})",
                           R"({"kind": "use_plan", "plan": "{}", "window_bytes": 1, "watch": false, "until": -1})",
                           R"({"kind": "speeds", "link_bytes_per_second": 0, "latency_seconds": 1, "flops_per_second": 1, "sum_bytes_per_second": 1})",
                           R"({"kind": "peer_lost", "peer": 70000, "why": ""})", R"({"kind": "abort", "code": "nonsense", "message": ""})"}) {
    const Result<Message> decoded = decode_text(text);
    ASSERT_FALSE(decoded.ok()) << text;
    EXPECT_EQ(decoded.error().code, ErrorCode::kCorruptFrame);
  }
}

TEST(Messages, AModelWithImpossibleShapesIsRefused) {
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{{"[16,36]", "[16,-36]"},
                                                                                 {"[16,36]", "[4611686018427387904,4]"},
                                                                                 {"[16,36]", "[16]"},  // a factor layer must be a matrix
                                                                                 {"[1,2]", "[1,9]"},
                                                                                 {"[1,2]", "[]"},
                                                                                 {"float32", "float31"}}) {
    std::string text = encode(one_of_each()[0]);
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from << " in " << text;
    text.replace(at, from.size(), to);
    EXPECT_FALSE(decode_text(text).ok()) << to;
  }
}

TEST(Messages, DamagedAtRandomAreRefusedOrReadButNeverFatal) {
  std::mt19937_64 random(1);
  const std::vector<Message> messages = one_of_each();
  for (int round = 0; round < 20'000; ++round) {
    std::string text = encode(messages[random() % messages.size()]);
    for (std::uint64_t changes = 1 + random() % 4; changes > 0; --changes) text[random() % text.size()] = static_cast<char>(random());
    static_cast<void>(decode_text(text));
  }
}

}  // namespace
}  // namespace poseidon::cluster
