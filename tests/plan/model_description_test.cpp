#include "plan/model_description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace poseidon::plan {
namespace {

using ::testing::HasSubstr;

constexpr const char* kTwoLayers = R"({"name": "two", "layers": [
  {"name": "conv", "kind": "conv", "params": [[8, 3, 5, 5], [8]], "fc": null, "tied_to": null, "rows_per_sample": 0,
   "forward_flops_per_sample": 100, "backward_flops_per_sample": 200},
  {"name": "relu", "kind": "relu", "params": [], "fc": null, "tied_to": null, "rows_per_sample": 0,
   "forward_flops_per_sample": 1, "backward_flops_per_sample": 1},
  {"name": "fc", "kind": "fc", "params": [[10, 20], [10]], "fc": {"m": 10, "n": 20}, "tied_to": null, "rows_per_sample": 3,
   "forward_flops_per_sample": 400, "backward_flops_per_sample": 800}]})";

TEST(ModelDescription, IsReadInOrder) {
  const ModelDescription description = parse_model_description(kTwoLayers).value();
  EXPECT_EQ(description.name, "two");
  ASSERT_EQ(description.layers.size(), 3u);
  EXPECT_EQ(description.parameters(), 8u * 75 + 8 + 210);
  EXPECT_DOUBLE_EQ(description.flops(), 1502);
  EXPECT_FALSE(description.layers[0].has_factors);
  EXPECT_TRUE(description.layers[2].has_factors);
}

TEST(ModelDescription, BecomesAModelOfItsTrainedLayers) {
  const DescribedModel described = model_of(parse_model_description(kTwoLayers).value(), 4);
  EXPECT_EQ(described.layer_of, (std::vector<std::size_t>{0, 2}));
  ASSERT_EQ(described.model.layers.size(), 2u);
  EXPECT_EQ(described.model.layers[0].factor_rows, 0u);
  EXPECT_EQ(described.model.layers[1].factor_rows, 12u);  // three rows for each of four samples
  EXPECT_EQ(described.model.tensors[2].shape, (std::vector<std::int64_t>{10, 20}));
}

TEST(ModelDescription, OfEachExampleHasTheParametersThatItStates) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(POSEIDON_SOURCE_FOLDER "/examples/models")) {
    if (entry.path().extension() != ".json") continue;
    std::ifstream file(entry.path());
    std::stringstream text;
    text << file.rdbuf();
    const ModelDescription description = parse_model_description(text.str()).value();
    const std::string stated = "\"total_params\": " + std::to_string(description.parameters()) + ",";
    EXPECT_NE(text.str().find(stated), std::string::npos) << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 13);
}

struct Mistake {
  const char* from;
  const char* to;
  const char* said;
};

class WrongDescription : public ::testing::TestWithParam<Mistake> {};

TEST_P(WrongDescription, IsRefusedWithTheLayerAndTheField) {
  std::string text = kTwoLayers;
  const std::string from = GetParam().from;
  text.replace(text.find(from), from.size(), GetParam().to);
  const Result<ModelDescription> result = parse_model_description(text);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(result.error().message, HasSubstr(GetParam().said));
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongDescription,
    ::testing::Values(Mistake{"\"layers\"", "\"strata\"", "no list \"layers\""},
                      Mistake{"\"name\": \"relu\", ", "", "lacks its name"},
                      Mistake{"\"name\": \"relu\"", "\"name\": \"conv\"", "\"conv\": there are two of this name"},
                      Mistake{"[8, 3, 5, 5]", "[8, 3, -5, 5]", "\"conv\": an extent in \"params\" is -5"},
                      Mistake{"[8, 3, 5, 5]", "[1000000, 1000000, 1000000]", "an extent in \"params\" is 1000000"},
                      Mistake{"[8, 3, 5, 5]", "7", "\"conv\": a shape in \"params\""},
                      Mistake{"\"forward_flops_per_sample\": 400", "\"forward_flops_per_sample\": -1", "\"forward_flops_per_sample\" is -1"},
                      Mistake{"\"forward_flops_per_sample\": 400,", "", "lacks a number \"forward_flops_per_sample\""},
                      Mistake{"[[10, 20], [10]]", "[[10, 20, 1], [10]]", "\"fc\": a layer with \"fc\" has the parameters"},
                      Mistake{"[[10, 20], [10]]", "[[10, 20], [11]]", "\"fc\": a layer with \"fc\" has the parameters"},
                      Mistake{"\"rows_per_sample\": 3", "\"rows_per_sample\": 4e12", "\"fc\": \"rows_per_sample\" is 4e+12"},
                      Mistake{"}]}", "", "no model description"}));

}  // namespace
}  // namespace poseidon::plan
