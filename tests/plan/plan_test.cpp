#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "plan/choose.h"
#include "plan/partition.h"

namespace poseidon::plan {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// LeNet on 28 x 28 images, batch 16.
Model lenet() {
  Model model;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> weight, std::size_t factor_rows) {
    const std::uint32_t first = static_cast<std::uint32_t>(model.tensors.size());
    model.tensors.push_back({name + ".weight", weight, DType::kFloat32});
    model.tensors.push_back({name + ".bias", {weight[0]}, DType::kFloat32});
    model.layers.push_back({name, {TensorId{first}, TensorId{first + 1}}, factor_rows});
  };
  add("conv1", {20, 1, 5, 5}, 0);
  add("conv2", {50, 20, 5, 5}, 0);
  add("ip1", {500, 800}, 16);
  add("ip2", {10, 500}, 16);
  return model;
}

std::vector<Scheme> schemes_of(const std::vector<LayerChoice>& choices) {
  std::vector<Scheme> schemes;
  for (const LayerChoice& choice : choices) schemes.push_back(choice.chosen.scheme);
  return schemes;
}

TEST(Choose, TakesTheLeastPredictedTime) {
  for (const double rate : {1e5, 1e7, 1e9, 1e11}) {
    for (const int workers : {2, 4, 8, 32}) {
      const auto choices = choose(lenet(), workers, {}, {.link_bytes_per_second = rate}).value();
      for (const LayerChoice& choice : choices) {
        const double chosen = choice.predictions[static_cast<std::size_t>(choice.chosen.scheme)]->seconds;
        for (const auto& prediction : choice.predictions) {
          if (prediction) {
            EXPECT_LE(chosen, prediction->seconds) << choice.name;
          }
        }
      }
    }
  }
}

TEST(Choose, PrefersFactorsOnASlowLinkAndNeverForConvolutions) {
  const auto choices = choose(lenet(), 4, {}, {.link_bytes_per_second = 1e6}).value();
  EXPECT_EQ(schemes_of(choices)[0], Scheme::kPs);
  EXPECT_EQ(schemes_of(choices)[1], Scheme::kPs);
  // 62,400 numbers of factors through each link instead of 600,000 of matrix.
  EXPECT_EQ(schemes_of(choices)[2], Scheme::kSfb);
}

TEST(Choose, DoesWhatTheUserSays) {
  const SchemeRequest request = parse_scheme_request("block,ip2=adam").value();
  const auto choices = choose(lenet(), 4, request, {}).value();
  EXPECT_EQ(schemes_of(choices), (std::vector<Scheme>{Scheme::kPs, Scheme::kPs, Scheme::kBlock, Scheme::kAdam}));
  EXPECT_EQ(choices[2].chosen.grid, (Grid{2, 2}));
  EXPECT_TRUE(choices[3].requested);
}

TEST(Choose, NamesTheLayerThatWasMeant) {
  const auto error = choose(lenet(), 4, parse_scheme_request("ip3=sfb").value(), {}).error();
  EXPECT_THAT(error.message, HasSubstr("the net has no layer \"ip3\""));
  EXPECT_THAT(error.message, HasSubstr("did you mean ip1 or ip2?"));
  EXPECT_THAT(choose(lenet(), 4, parse_scheme_request("conv1=sfb").value(), {}).error().message,
              HasSubstr("only ps is possible"));
}

TEST(Choose, DoesNotOfferSfbWhereWorkersComputeDifferentBits) {
  const auto choices = choose(lenet(), 4, {}, {.link_bytes_per_second = 1e6}, false).value();
  EXPECT_NE(schemes_of(choices)[2], Scheme::kSfb);
  EXPECT_FALSE(choices[2].predictions[static_cast<std::size_t>(Scheme::kSfb)].has_value());
  EXPECT_THAT(choose(lenet(), 4, parse_scheme_request("ip1=sfb").value(), {}, false).error().message,
              HasSubstr("replicas would not stay equal"));
}

TEST(ParseSchemeRequest, RefusesUnknownWords) {
  EXPECT_THAT(parse_scheme_request("blok").error().message, HasSubstr("did you mean block?"));
  EXPECT_FALSE(parse_scheme_request("ip1=auto").ok());
  EXPECT_FALSE(parse_scheme_request("auto").value().all.has_value());
}

TEST(ChoiceTable, ShowsEveryLayerEverySchemeAndTheChoice) {
  const Speeds speeds{.link_bytes_per_second = 1.25e8};
  const std::string table = choice_table(choose(lenet(), 4, parse_scheme_request("ip2=ps").value(), speeds).value(), 4, speeds);
  EXPECT_THAT(table, HasSubstr("4 workers; link 1.00 Gbit/s"));
  EXPECT_THAT(table, HasSubstr("500 x 800, K 16"));
  EXPECT_THAT(table, HasSubstr("ps (asked for)"));
  // 4 · 3 · 16 · 1,300 numbers of 4 bytes.
  EXPECT_THAT(table, HasSubstr("975.0 KiB"));
}

TEST(ServingText, TellsWhoServesHowMuch) {
  EXPECT_EQ(serving_text({4, {}}), "");
  EXPECT_EQ(serving_text({.workers = 4, .layers = {}, .server_shares = {100'000, 100'000, 100'000, 100'000, 300'000, 300'000}}),
            "Dense layers: each worker serves 10 %, each of 2 dedicated servers 30 %\n");
  EXPECT_EQ(serving_text({.workers = 3, .layers = {}, .server_shares = {1, 3, 4}}), "Dense layers: each worker serves 12.5 to 50 %\n");
}

Plan some_plan() {
  return {4,
          {{"conv1", Scheme::kPs, {}, Rank{0}},
           {"conv2", Scheme::kPs, {}, Rank{0}},
           {"ip1", Scheme::kBlock, {2, 2}, Rank{0}},
           {"ip2", Scheme::kAdam, {}, Rank{3}}}};
}

TEST(PlanJson, ComesBackAsItWas) {
  const Result<Plan> plan = parse_plan(to_json(some_plan()), lenet(), 4);
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(*plan, some_plan());
}

TEST(PlanJson, OfAnotherJobIsRefusedWithTheReason) {
  const std::string good = to_json(some_plan());
  const auto error = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    const Result<Plan> plan = parse_plan(text, lenet(), 4);
    EXPECT_FALSE(plan.ok()) << text;
    return plan.ok() ? std::string() : plan.error().message;
  };
  EXPECT_THAT(parse_plan(good, lenet(), 2).error().message, HasSubstr("made for 4 workers, this job has 2"));
  EXPECT_THAT(error("\"ip1\"", "\"fc1\""), HasSubstr("names layer \"fc1\" where the model has \"ip1\""));
  EXPECT_THAT(error("\"block\"", "\"blocks\""), HasSubstr("did you mean block?"));
  EXPECT_THAT(error("[\n        2,\n        2\n      ]", "[3, 2]"), HasSubstr("a grid of 3 x 2 owners"));
  EXPECT_THAT(error("\"owner\": 3", "\"owner\": 4"), HasSubstr("a rank from 0 to 3"));
  EXPECT_THAT(error("\"poseidon_plan\": 1", "\"poseidon_plan\": 2"), HasSubstr("poseidon_plan"));
  EXPECT_THAT(error("\"scheme\": \"ps\"", "\"scheme\": \"sfb\""), HasSubstr("layer conv1 has no sufficient factors"));
  EXPECT_FALSE(parse_plan("{", lenet(), 4).ok());
  EXPECT_FALSE(parse_plan("[]", lenet(), 4).ok());
  EXPECT_FALSE(parse_plan(R"({"poseidon_plan": 1, "workers": 4, "layers": 7})", lenet(), 4).ok());
}

TEST(PlanJson, KeepsAPlaceForSeveralDevicesOfOneNode) {
  const std::string good = to_json(some_plan());
  const std::string field = "\"devices_per_node\": 1";
  const std::size_t at = good.find(field);
  ASSERT_NE(at, std::string::npos) << good;
  const auto with = [&](const std::string& other) { return std::string(good).replace(at, field.size(), other); };
  for (const std::string value : {"2", "0", "1.5", "\"1\"", "null"}) {
    const Result<Plan> plan = parse_plan(with("\"devices_per_node\": " + value), lenet(), 4);
    ASSERT_FALSE(plan.ok()) << value;
    EXPECT_THAT(plan.error().message, HasSubstr("its \"devices_per_node\" is " + value));
    EXPECT_THAT(plan.error().message, HasSubstr("only 1 is possible"));
  }
  // A plan that was written before there was such a field.
  const Result<Plan> old = parse_plan(with("\"made_by\": \"an older poseidon\""), lenet(), 4);
  ASSERT_TRUE(old.ok()) << old.error().message;
  EXPECT_EQ(*old, some_plan());
  EXPECT_EQ(old->devices_per_node, 1);
}

TEST(Plan, TheWireIsPartOfIt) {
  EXPECT_EQ(to_json(some_plan()).find("wire"), std::string::npos) << "left out where gradients travel as they are";
  for (const DType wire : {DType::kBFloat16, DType::kFloat16}) {
    Plan plan = some_plan();
    plan.wire = wire;
    const Result<Plan> again = parse_plan(to_json(plan), lenet(), 4);
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(*again, plan);
    EXPECT_NE(*again, some_plan());
  }
  Plan plan = some_plan();
  plan.wire = DType::kBFloat16;
  const std::string text = to_json(plan);
  const std::size_t at = text.find("\"bfloat16\"");
  for (const char* wrong : {"\"float32\"", "\"bf16\"", "16", "null", "[\"bfloat16\"]"}) {
    const Result<Plan> parsed = parse_plan(text.substr(0, at) + wrong + text.substr(at + 10), lenet(), 4);
    ASSERT_FALSE(parsed.ok()) << wrong;
    EXPECT_EQ(parsed.error().message, std::string("the plan cannot be used: its \"wire\" is ") + wrong +
                                          ": it must be \"bfloat16\" or \"float16\", or left out");
  }
}

TEST(Plan, OnlyFloat32IsNarrowedOnTheWire) {
  Model model;
  for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16}) {
    model.tensors.push_back({"t", {2}, dtype});
  }
  const auto types = [&](int workers, std::optional<DType> wire) {
    std::vector<DType> list;
    for (const TensorSpec& tensor : model_on_wire(model, workers, wire).tensors) list.push_back(tensor.dtype);
    return list;
  };
  EXPECT_THAT(types(2, DType::kFloat16), ElementsAre(DType::kFloat16, DType::kFloat64, DType::kBFloat16, DType::kFloat16));
  EXPECT_THAT(types(2, std::nullopt), ElementsAre(DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16));
  EXPECT_THAT(types(1, DType::kFloat16), ElementsAre(DType::kFloat32, DType::kFloat64, DType::kBFloat16, DType::kFloat16))
      << "alone nothing travels";
}

Model dense_model(const std::vector<std::size_t>& tensor_floats) {
  Model model;
  for (std::size_t i = 0; i < tensor_floats.size(); ++i) {
    model.tensors.push_back({"t" + std::to_string(i), {static_cast<std::int64_t>(tensor_floats[i])}, DType::kFloat32});
    model.layers.push_back({"l" + std::to_string(i), {TensorId{static_cast<std::uint32_t>(i)}}, 0});
  }
  return model;
}

Plan all_ps(const Model& model, int workers) {
  Plan plan{workers, {}};
  for (const LayerSpec& layer : model.layers) plan.layers.push_back({layer.name, Scheme::kPs, {}, Rank{0}});
  return plan;
}

// Each byte once, in order, by chunks that begin at cache lines, are no longer than about `most`, and are the servers' that serve.
void expect_tiled(const std::vector<Chunk>& chunks, std::size_t bytes, std::size_t most, const Plan& plan) {
  std::size_t at = 0;
  for (const Chunk& chunk : chunks) {
    ASSERT_EQ(chunk.begin, at);
    ASSERT_GT(chunk.end, chunk.begin);
    ASSERT_EQ(chunk.begin % 64, 0u);
    ASSERT_LE(chunk.end - chunk.begin, most + 64u);
    ASSERT_GE(index(chunk.server), 0);
    ASSERT_LT(index(chunk.server), plan.nodes());
    if (!plan.server_shares.empty()) {
      ASSERT_GT(plan.server_shares.at(static_cast<std::size_t>(index(chunk.server))), 0u) << "a node that does not serve";
    }
    at = chunk.end;
  }
  ASSERT_EQ(at, bytes);
}

TEST(Partition, ChunksCoverEachTensorOnceWithinTheirLimits) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::size_t> floats;
    for (int i = 0; i < 6; ++i) floats.push_back(1 + random() % (std::size_t{1} << (4 + random() % 19)));
    const Model model = dense_model(floats);
    const int workers = 1 + static_cast<int>(random() % 16);
    const Plan plan = all_ps(model, workers);
    const auto chunks = partition(model, plan);
    for (std::size_t t = 0; t < floats.size(); ++t) {
      ASSERT_NO_FATAL_FAILURE(expect_tiled(chunks[t], 4 * floats[t], 1 << 20, plan));
      if (chunks[t].size() > 1) {
        EXPECT_GE(chunks[t][0].end - chunks[t][0].begin, 16u * 1024);
      }
    }
  }
}

TEST(Partition, SharesOfLargeTensorsAreWithinFivePercent) {
  for (const int workers : {2, 3, 4, 7, 8, 16, 32}) {
    for (const std::size_t extra : {std::size_t{0}, std::size_t{1}, std::size_t{12'345}, std::size_t{777'777}}) {
      const Model model = dense_model({(static_cast<std::size_t>(workers) << 18) + extra});  // P MiB and a bit
      const auto chunks = partition(model, all_ps(model, workers));
      std::vector<double> share(static_cast<std::size_t>(workers), 0);
      for (const Chunk& chunk : chunks[0]) share[static_cast<std::size_t>(index(chunk.server))] += static_cast<double>(chunk.end - chunk.begin);
      const double mean = static_cast<double>(model.tensors[0].bytes()) / workers;
      for (const double bytes : share) EXPECT_LE(bytes, 1.05 * mean) << workers << " workers, " << extra << " extra";
    }
  }
}

TEST(Partition, SmallTensorsNearEachOtherGoToDifferentServers) {
  const Model model = dense_model(std::vector<std::size_t>(8, 100));
  const auto chunks = partition(model, all_ps(model, 4));
  for (std::size_t t = 0; t + 1 < 8; ++t) {
    ASSERT_EQ(chunks[t].size(), 1u);
    EXPECT_NE(chunks[t][0].server, chunks[t + 1][0].server);
  }
}

// (begin, end, server) of each chunk, as text.
std::string described(const std::vector<Chunk>& chunks) {
  std::string text;
  for (const Chunk& chunk : chunks) {
    text += std::to_string(chunk.begin) + "-" + std::to_string(chunk.end) + ":" + std::to_string(index(chunk.server)) + " ";
  }
  return text;
}

TEST(Partition, WithoutSharesStaysWhereItHasAlwaysBeen) {
  // 400 bytes, 1 MiB, 400 bytes, 6 MiB and a number, 80,000 bytes, 40,000 bytes. By hand: four servers, so 64 KiB and more are cut;
  // the second cut tensor begins at server 1, the third at 2.
  const Model model = dense_model({100, 1 << 18, 100, (6 << 18) + 1, 20'000, 10'000});
  const auto chunks = partition(model, all_ps(model, 4));
  EXPECT_EQ(described(chunks[0]), "0-400:0 ");
  EXPECT_EQ(described(chunks[1]), "0-262144:0 262144-524288:1 524288-786432:2 786432-1048576:3 ");
  EXPECT_EQ(described(chunks[2]), "0-400:1 ");
  // 6,291,460 bytes in 8 chunks: 786,432.5 rounded up to 64.
  EXPECT_EQ(described(chunks[3]),
            "0-786496:1 786496-1572992:2 1572992-2359488:3 2359488-3145984:0 3145984-3932480:1 3932480-4718976:2 4718976-5505472:3 "
            "5505472-6291460:0 ");
  EXPECT_EQ(described(chunks[4]), "0-20032:2 20032-40064:3 40064-60096:0 60096-80000:1 ");
  EXPECT_EQ(described(chunks[5]), "0-40000:2 ");
}

// Shares as a plan may have them: some nodes serve nothing, some much.
std::vector<std::uint32_t> random_shares(std::mt19937_64& random, int nodes) {
  std::vector<std::uint32_t> shares;
  for (int node = 0; node < nodes; ++node) shares.push_back(random() % 4 == 0 ? 0 : static_cast<std::uint32_t>(1 + random() % 300'000));
  if (std::all_of(shares.begin(), shares.end(), [](std::uint32_t share) { return share == 0; })) shares.back() = 7;
  return shares;
}

TEST(PartitionByShares, CoversEachTensorOnceAndNeverGivesAnybodyMuchMoreThanItsShare) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::size_t> floats;
    for (int i = 0; i < 8; ++i) floats.push_back(1 + random() % (std::size_t{1} << (4 + random() % 19)));
    const Model model = dense_model(floats);
    Plan plan = all_ps(model, 1 + static_cast<int>(random() % 8));
    plan.server_shares = random_shares(random, plan.workers + static_cast<int>(random() % 5));
    double all_shares = 0;
    double servers = 0;
    for (const std::uint32_t share : plan.server_shares) {
      all_shares += share;
      servers += share > 0 ? 1 : 0;
    }
    const auto chunks = partition(model, plan);
    std::vector<double> got(plan.server_shares.size(), 0);
    double dealt = 0;
    for (std::size_t t = 0; t < floats.size(); ++t) {
      ASSERT_NO_FATAL_FAILURE(expect_tiled(chunks[t], 4 * floats[t], 1 << 18, plan));
      if (4.0 * static_cast<double>(floats[t]) < servers * 16 * 1024) {
        EXPECT_EQ(chunks[t].size(), servers == 1 ? chunks[t].size() : 1u);
        continue;
      }
      std::vector<double> own(got.size(), 0);
      for (const Chunk& chunk : chunks[t]) own[static_cast<std::size_t>(index(chunk.server))] += static_cast<double>(chunk.end - chunk.begin);
      dealt += 4.0 * static_cast<double>(floats[t]);
      for (std::size_t node = 0; node < got.size(); ++node) {
        got[node] += own[node];
        const double fair = plan.server_shares[node] / all_shares;
        // Chunks of earlier tensors, in which somebody may have got a little more, are at most 256 KiB.
        EXPECT_LE(got[node], fair * dealt + (1 << 18) + 64) << "node " << node << " after tensor " << t;
        EXPECT_GE(got[node], fair * dealt - 2 * (1 << 18)) << "node " << node << " after tensor " << t;
      }
    }
  }
}

TEST(PartitionByShares, GivesTwoDedicatedServersTheirPartOfALargeTensor) {
  const Model model = dense_model({10 << 18});  // 10 MiB
  Plan plan = all_ps(model, 4);
  plan.server_shares = {100'000, 100'000, 100'000, 100'000, 300'000, 300'000};
  std::vector<double> share(6, 0);
  const auto chunks = partition(model, plan);
  for (const Chunk& chunk : chunks[0]) share[static_cast<std::size_t>(index(chunk.server))] += static_cast<double>(chunk.end - chunk.begin) / (10 << 20);
  for (int node = 0; node < 6; ++node) EXPECT_NEAR(share[static_cast<std::size_t>(node)], node < 4 ? 0.1 : 0.3, 0.025) << node;
}

TEST(PartitionByShares, SmallTensorsGoWhereTheyWeighLeast) {
  const Model model = dense_model(std::vector<std::size_t>(8, 100));
  Plan plan = all_ps(model, 2);
  plan.server_shares = {1, 0, 10, 10};
  const auto chunks = partition(model, plan);
  for (std::size_t t = 0; t < 8; ++t) EXPECT_EQ(chunks[t][0].server, Rank{t % 2 == 0 ? 2 : 3}) << "never at rank 0, which would need ten times as long";
}

TEST(PlanJson, KeepsWhoServes) {
  Plan plan = some_plan();
  plan.server_shares = {100'000, 100'000, 100'000, 0, 350'000, 350'000};
  EXPECT_EQ(plan.nodes(), 6);
  const Result<Plan> again = parse_plan(to_json(plan), lenet(), 4);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, plan);
  EXPECT_EQ(some_plan().nodes(), 4);
  EXPECT_EQ(to_json(some_plan()).find("server_shares"), std::string::npos) << "as plans have always been";
}

TEST(PlanJson, SharesThatCannotBeAreRefused) {
  const std::string good = to_json(some_plan());
  const auto error = [&](const std::string& shares) {
    std::string text = good;
    text.insert(text.find("\"layers\""), "\"server_shares\": " + shares + ", ");
    const Result<Plan> plan = parse_plan(text, lenet(), 4);
    return plan.ok() ? std::string("accepted") : plan.error().message;
  };
  EXPECT_EQ(error("[1, 0, 0, 0]"), "accepted");
  EXPECT_THAT(error("[1, 1, 1]"), HasSubstr("must be a list of 4 workers' shares"));
  EXPECT_THAT(error("7"), HasSubstr("must be a list"));
  EXPECT_THAT(error("[0, 0, 0, 0, 0]"), HasSubstr("nobody serves"));
  for (const std::string wrong : {"-1", "0.5", "1000001", "\"1\"", "null", "18446744073709551616"}) {
    EXPECT_THAT(error("[1, 1, 1, " + wrong + "]"), HasSubstr("is no whole number from 0 to 1000000")) << wrong;
  }
}

TEST(PlanJson, KeepsTheSizeOfChunks) {
  Plan plan = some_plan();
  EXPECT_EQ(to_json(plan).find("chunk_bytes"), std::string::npos) << "as plans have always been";
  plan.chunk_bytes = 4 << 20;
  const std::string good = to_json(plan);
  const Result<Plan> again = parse_plan(good, lenet(), 4);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(*again, plan);
  for (const std::string wrong : {"0", "262143", "67108865", "-1048576", "1e6", "\"1 MiB\"", "null", "18446744073709551616"}) {
    std::string text = good;
    text.replace(text.find("4194304"), 7, wrong);
    const Result<Plan> refused = parse_plan(text, lenet(), 4);
    ASSERT_FALSE(refused.ok()) << wrong;
    EXPECT_THAT(refused.error().message, HasSubstr("its \"chunk_bytes\" is")) << wrong;
  }
}

TEST(ChunkBytes, AreWhatTheLinkCarriesInSixteenLatencies) {
  EXPECT_EQ(chunk_bytes_for(1.25e9, 50e-6), 1u << 20);   // 1,000,000
  EXPECT_EQ(chunk_bytes_for(0.25e9, 50e-6), 1u << 18);   // 200,000
  EXPECT_EQ(chunk_bytes_for(5e9, 50e-6), 1u << 22);      // 4,000,000
  EXPECT_EQ(chunk_bytes_for(1.25e8, 5e-3), 1u << 24);    // 10,000,000
  EXPECT_EQ(chunk_bytes_for(1e3, 1e-9), kChunkBytesLeast);
  EXPECT_EQ(chunk_bytes_for(1e12, 1), kChunkBytesMost);
}

TEST(Partition, CutsChunksOfThePlansSize) {
  const Model model = dense_model({std::size_t{8} << 20});
  Plan plan = all_ps(model, 4);
  for (const std::uint32_t bytes : {1u << 18, 1u << 20, 1u << 23}) {
    plan.chunk_bytes = bytes;
    const auto chunks = partition(model, plan)[0];
    const std::size_t whole = model.tensors[0].bytes();
    EXPECT_EQ(chunks.size(), std::max<std::size_t>(4, whole / bytes)) << "each server has one at least";
    for (const Chunk& chunk : chunks) EXPECT_LE(chunk.end - chunk.begin, bytes);
  }
}

TEST(NodeName, TellsWorkersFromDedicatedServers) {
  EXPECT_EQ(node_name(Rank{3}, 4), "rank 3");
  EXPECT_EQ(node_name(Rank{4}, 4), "server 0");
}

// Of each server, in bytes of the tensors [first, last).
std::vector<double> shares(const std::vector<std::vector<Chunk>>& chunks, std::size_t first, std::size_t last, int workers) {
  std::vector<double> share(static_cast<std::size_t>(workers), 0);
  for (std::size_t t = first; t < last; ++t) {
    for (const Chunk& chunk : chunks[t]) share[static_cast<std::size_t>(index(chunk.server))] += static_cast<double>(chunk.end - chunk.begin);
  }
  return share;
}

TEST(PartitionAmongMany, CoversEachTensorOnce) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 100; ++round) {
    std::vector<std::size_t> floats;
    for (int i = 0; i < 20; ++i) floats.push_back(random() % (std::size_t{1} << (1 + random() % 23)));
    const Model model = dense_model(floats);
    const int workers = 65 + static_cast<int>(random() % 2000);
    const Plan plan = all_ps(model, workers);
    const auto chunks = partition(model, plan);
    for (std::size_t t = 0; t < floats.size(); ++t) {
      ASSERT_NO_FATAL_FAILURE(expect_tiled(chunks[t], 4 * floats[t], 1 << 20, plan));
    }
  }
}

TEST(PartitionAmongMany, GivesEachServerTheSameShareOfTheModel) {
  for (const int workers : {65, 100, 256, 1024}) {
    // Sizes as in a residual net: many small ones among larger ones; 100 MB in all.
    std::vector<std::size_t> floats;
    for (int i = 0; i < 100; ++i) floats.insert(floats.end(), {65'536, 256, 256, 147'456, 64, 64, 36'864});
    const Model model = dense_model(floats);
    const auto share = shares(partition(model, all_ps(model, workers)), 0, floats.size(), workers);
    const double mean = 4.0 * 100 * (65'536 + 512 + 147'456 + 128 + 36'864) / workers;
    for (const double bytes : share) EXPECT_NEAR(bytes, mean, 0.01 * mean) << workers << " workers";
  }
}

TEST(PartitionAmongMany, CutsFinelyWhatTheNextForwardPassWantsFirst) {
  // 240 MiB over 1,024 servers: rounds of 4, 8, 16, 32 and 64 KiB sections hold 124 MiB, so there are six, of 63 parts in all for each
  // server, and a part is 240 * 2^20 / (1024 * 63) = 3,900.9 bytes.
  const Model model = dense_model({std::size_t{60} << 20});
  const auto chunks = partition(model, all_ps(model, 1024));
  ASSERT_EQ(chunks[0].size(), 6u * 1024);
  EXPECT_EQ(chunks[0][0].end, 3'904u) << "rounded up to a multiple of 64";
  EXPECT_EQ(index(chunks[0][1023].server), 1023);
  EXPECT_EQ(index(chunks[0][1024].server), 0);
  EXPECT_NEAR(static_cast<double>(chunks[0].back().end - chunks[0].back().begin), 32 * 3'900.9, 64);
}

TEST(PartitionAmongMany, CutsWhatIsVeryLargeIntoChunksOfAMebibyte) {
  // 100 GiB over 100 servers.
  const Model model = dense_model({std::size_t{25} << 30});
  const auto chunks = partition(model, all_ps(model, 100));
  EXPECT_NEAR(static_cast<double>(chunks[0].size()), 100 * 1024, 100 * 1024 * 0.02);
}

TEST(PartitionAmongMany, UsesNoMoreServersThanThereAreParts) {
  // 40 KiB are ten sections of 4 KiB.
  const Model model = dense_model({5'120, 5'120});
  const auto share = shares(partition(model, all_ps(model, 1000)), 0, 2, 1000);
  EXPECT_EQ(std::count(share.begin(), share.end(), 4096.0), 10);
  EXPECT_EQ(std::count(share.begin(), share.end(), 0.0), 990);
}

TEST(PartitionAmongMany, BeginsWhereThereAreMoreThanSixtyFour) {
  const Model model = dense_model({std::size_t{1} << 20});
  // 4 MiB over 64 servers: one chunk of 64 KiB each, as ever.
  EXPECT_EQ(partition(model, all_ps(model, 64))[0].size(), 64u);
  EXPECT_GT(partition(model, all_ps(model, 65))[0].size(), 65u);
}

TEST(PartitionAmongMany, GivesEachServerItsOwnShareWhereThePlanHasShares) {
  // 70 workers with a share of 3 each, five of which serve nothing, and 10 dedicated servers with 11.
  std::vector<std::size_t> floats;
  for (int i = 0; i < 100; ++i) floats.insert(floats.end(), {65'536, 256, 256, 147'456, 64, 64, 36'864});
  const Model model = dense_model(floats);
  Plan plan = all_ps(model, 70);
  plan.server_shares.assign(80, 3);
  for (std::size_t node = 0; node < 5; ++node) plan.server_shares[10 * node] = 0;
  for (std::size_t node = 70; node < 80; ++node) plan.server_shares[node] = 11;
  const auto chunks = partition(model, plan);
  for (std::size_t t = 0; t < floats.size(); ++t) {
    std::size_t at = 0;
    for (const Chunk& chunk : chunks[t]) {
      ASSERT_EQ(chunk.begin, at);
      ASSERT_GT(chunk.end, chunk.begin);
      at = chunk.end;
    }
    ASSERT_EQ(at, 4 * floats[t]);
  }
  const auto share = shares(chunks, 0, floats.size(), 80);
  const double unit = 4.0 * 100 * (65'536 + 512 + 147'456 + 128 + 36'864) / (65 * 3 + 10 * 11);
  for (std::size_t node = 0; node < 80; ++node) {
    EXPECT_NEAR(share[node], unit * plan.server_shares[node], 0.01 * unit * plan.server_shares[node]) << node;
  }
}

TEST(PartitionFactors, BlocksTileTheMatrixAndTheBias) {
  for (const auto& [pr, pc] : {std::pair{1, 4}, {4, 1}, {2, 2}, {3, 5}, {16, 2}}) {
    const int workers = pr * pc;
    const FactorPartition partition = partition_factors(101, 73, {"fc", Scheme::kBlock, {pr, pc}, Rank{0}}, workers);
    EXPECT_TRUE(partition.sends_products);
    std::vector<int> owners(101 * 73, 0);
    std::vector<int> bias_owners(101, 0);
    for (int rank = 0; rank < workers; ++rank) {
      const Block* const block = partition.block_of(Rank{rank});
      ASSERT_NE(block, nullptr);
      for (std::size_t i = block->row_begin; i < block->row_end; ++i) {
        for (std::size_t j = block->col_begin; j < block->col_end; ++j) ++owners[i * 73 + j];
      }
      EXPECT_GE(block->bias_begin, block->row_begin);
      EXPECT_LE(block->bias_end, block->row_end);
      for (std::size_t i = block->bias_begin; i < block->bias_end; ++i) ++bias_owners[i];
    }
    EXPECT_THAT(owners, ::testing::Each(1));
    EXPECT_THAT(bias_owners, ::testing::Each(1));
  }
}

TEST(PartitionFactors, SfbMakesEveryoneAnOwnerAndAdamOne) {
  const FactorPartition sfb = partition_factors(5, 7, {"fc", Scheme::kSfb, {}, Rank{0}}, 3);
  EXPECT_FALSE(sfb.sends_products);
  EXPECT_EQ(sfb.blocks.size(), 3u);
  EXPECT_EQ(sfb.block_of(Rank{2})->rows(), 5u);
  const FactorPartition adam = partition_factors(5, 7, {"fc", Scheme::kAdam, {}, Rank{1}}, 3);
  EXPECT_TRUE(adam.sends_products);
  EXPECT_EQ(adam.block_of(Rank{0}), nullptr);
  EXPECT_EQ(adam.block_of(Rank{1})->cols(), 7u);
}

}  // namespace
}  // namespace poseidon::plan
