#include "engines/caffe/net/net_state.h"

#include "caffe/net/net_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

// The names of the layers that take part.
std::string taking_part(std::string_view rules, const NetState& state) {
  const std::string text = base::concat("layer { name: 'always' } layer { name: 'ruled' ", rules, " }");
  std::string names;
  for (const proto::Message& layer : layers_for(net_message(text), state)) names += layer.text("name") + " ";
  return names;
}
constexpr const char* kBoth = "always ruled ";
constexpr const char* kOne = "always ";

TEST(NetState, KeepsALayerWithoutRules) {
  EXPECT_EQ(taking_part("", {}), kBoth);
}

TEST(NetState, ComparesThePhase) {
  EXPECT_EQ(taking_part("include { phase: TRAIN }", {.phase = Phase::kTrain}), kBoth);
  EXPECT_EQ(taking_part("include { phase: TRAIN }", {.phase = Phase::kTest}), kOne);
  EXPECT_EQ(taking_part("exclude { phase: TEST }", {.phase = Phase::kTest}), kOne);
  EXPECT_EQ(taking_part("exclude { phase: TEST }", {.phase = Phase::kTrain}), kBoth);
}

TEST(NetState, ComparesTheLevelWithBothBounds) {
  EXPECT_EQ(taking_part("include { min_level: 2 }", {.level = 1}), kOne);
  EXPECT_EQ(taking_part("include { min_level: 2 }", {.level = 2}), kBoth);
  EXPECT_EQ(taking_part("include { max_level: 2 }", {.level = 3}), kOne);
  EXPECT_EQ(taking_part("include { min_level: -1 max_level: 2 }", {.level = 0}), kBoth);
}

TEST(NetState, WantsAllStagesOfARuleAndNoneOfItsOthers) {
  EXPECT_EQ(taking_part("include { stage: 'a' stage: 'b' }", {.stages = {"a"}}), kOne);
  EXPECT_EQ(taking_part("include { stage: 'a' stage: 'b' }", {.stages = {"b", "c", "a"}}), kBoth);
  EXPECT_EQ(taking_part("include { not_stage: 'a' }", {.stages = {"a"}}), kOne);
  EXPECT_EQ(taking_part("include { stage: 'b' not_stage: 'a' }", {.stages = {"b"}}), kBoth);
}

TEST(NetState, TakesALayerWhereAnyOfItsIncludeRulesHolds) {
  const std::string_view rules = "include { phase: TEST } include { stage: 'a' }";
  EXPECT_EQ(taking_part(rules, {.phase = Phase::kTrain, .stages = {"a"}}), kBoth);
  EXPECT_EQ(taking_part(rules, {.phase = Phase::kTrain}), kOne);
}

TEST(NetState, RefusesBothKindsOfRules) {
  EXPECT_EQ(error_of([] { taking_part("include { phase: TEST }\nexclude { phase: TRAIN }", {}); }),
            "net.prototxt:2:1: layer \"ruled\" has both include and exclude rules; give one kind");
}

TEST(NetState, AddsWhatAMessageStates) {
  const proto::Message message = proto::parse_text("phase: TRAIN level: 3 stage: 'b'", "NetState", "n");
  const NetState state = merged({.phase = Phase::kTest, .level = 1, .stages = {"a"}}, message);
  EXPECT_EQ(state.phase, Phase::kTest);
  EXPECT_EQ(state.level, 3);
  EXPECT_EQ(state.stages, (std::vector<std::string>{"a", "b"}));
}

TEST(NetState, TurnsTheOlderInputsIntoALayer) {
  const auto tops = [](std::string_view text) {
    std::vector<Shape> shapes;
    const Net net = make_net(text, {.state = {.phase = Phase::kTest}});
    for (const Blob& blob : net.blobs()) shapes.push_back(blob.shape);
    return shapes;
  };
  EXPECT_EQ(tops("input: 'data' input_dim: 1 input_dim: 3 input_dim: 5 input_dim: 7"),
            (std::vector<Shape>{{1, 3, 5, 7}}));
  EXPECT_EQ(tops("input: 'a' input: 'b' input_shape { dim: 2 dim: 3 } input_shape { dim: 4 }"),
            (std::vector<Shape>{{2, 3}, {4}}));
  EXPECT_EQ(
      net_error("name: 'n'\ninput: 'a' input_dim: 1"),
      "net.prototxt:2:1: each input needs one input_shape, or four input_dim: there are 1 inputs, 0 input_shape and 1 "
      "input_dim");
}

}  // namespace
}  // namespace poseidon::caffe
