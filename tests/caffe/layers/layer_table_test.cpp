// docs/caffe-layers.md and the registry name the same types.
#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

// The rows of the page's tables that begin with a type: | `ReLU` | ...
std::vector<std::string> documented_types() {
  std::ifstream page(POSEIDON_SOURCE_FOLDER "/docs/caffe-layers.md");
  EXPECT_TRUE(page.is_open());
  std::vector<std::string> types;
  const std::string begin = "| `";
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with(begin))
      types.push_back(line.substr(begin.size(), line.find('`', begin.size()) - begin.size()));
  }
  return types;
}

TEST(LayerTable, HasARowForEachTypeOfLayerAndNoOther) {
  std::vector<std::string> documented = documented_types();
  std::sort(documented.begin(), documented.end());
  EXPECT_EQ(documented, standard_layers().types());
}

}  // namespace
}  // namespace poseidon::caffe
