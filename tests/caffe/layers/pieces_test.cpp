// Concat, Crop, Slice and Tile, against plain loops over indices.
#include <algorithm>
#include <functional>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

std::string text_of(std::string_view type, std::size_t bottoms, std::size_t tops, std::string_view settings) {
  std::string names;
  for (std::size_t i = 0; i < bottoms; ++i) names += base::concat("bottom: 'x", i, "' ");
  for (std::size_t i = 0; i < tops; ++i) names += base::concat("top: 'y", i, "' ");
  return base::concat("name: 'l' type: '", type, "' ", names, "\n", settings);
}

// Element by element: `source` gives the value for an index.
std::vector<double> by_index(const Shape& shape, const std::function<double(const Shape&)>& source) {
  std::vector<double> values;
  Shape index(shape.size(), 0);
  for (std::int64_t i = 0; i < elements_of(shape); ++i) {
    values.push_back(source(index));
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      if (++index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
  return values;
}

double element(const at::Tensor& tensor, const Shape& index) {
  std::int64_t flat = 0;
  for (std::size_t axis = 0; axis < index.size(); ++axis) {
    flat = flat * tensor.size(static_cast<std::int64_t>(axis)) + index[axis];
  }
  return values_of(tensor)[static_cast<std::size_t>(flat)];
}

Shape random_shape(std::mt19937_64& random, std::int64_t axes) {
  Shape shape;
  for (std::int64_t i = 0; i < axes; ++i) shape.push_back(pick(random, 1, 4));
  return shape;
}

// A random axis, and the way that the prototxt writes it: from either end.
std::pair<std::size_t, std::int64_t> random_axis(std::mt19937_64& random, std::int64_t axes) {
  const std::int64_t axis = pick(random, 0, axes - 1);
  return {static_cast<std::size_t>(axis), pick(random, 0, 1) == 0 ? axis : axis - axes};
}

TEST(Concat, PutsItsBottomsBehindEachOther) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 40; ++trial) {
    const std::int64_t axes = pick(random, 1, 4);
    const auto [axis, written] = random_axis(random, axes);
    const Shape first = random_shape(random, axes);
    std::vector<at::Tensor> bottoms;
    Shape whole = first;
    whole[axis] = 0;
    for (std::int64_t i = pick(random, 1, 3); i > 0; --i) {
      Shape shape = first;
      shape[axis] = pick(random, 1, 4);
      whole[axis] += shape[axis];
      bottoms.push_back(random_tensor(shape, random));
    }
    const std::string text = text_of("Concat", bottoms.size(), 1, base::concat("concat_param { axis: ", written, " }"));
    SCOPED_TRACE(text);
    const at::Tensor top = tops_of(text, bottoms)[0];
    EXPECT_EQ(top.sizes().vec(), whole);
    expect_near(top,
                by_index(whole,
                         [&](Shape index) {
                           std::size_t bottom = 0;
                           for (; index[axis] >= bottoms[bottom].size(static_cast<std::int64_t>(axis)); ++bottom) {
                             index[axis] -= bottoms[bottom].size(static_cast<std::int64_t>(axis));
                           }
                           return element(bottoms[bottom], index);
                         }),
                0);
  }
}

TEST(Concat, TakesChannelsUnlessToldOtherwiseAndKnowsTheOlderName) {
  const std::vector<at::Tensor> x = {tensor_of({1, 2}, {2, 1}), tensor_of({3, 4}, {2, 1})};
  expect_near(tops_of(text_of("Concat", 2, 1, ""), x)[0], {1, 3, 2, 4}, 0);
  expect_near(tops_of(text_of("Concat", 2, 1, "concat_param { concat_dim: 0 }"), x)[0], {1, 2, 3, 4}, 0);
}

TEST(Concat, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(2);
  const std::vector<at::Tensor> x = {random_tensor({2, 3, 2}, random), random_tensor({2, 1, 2}, random)};
  expect_gradients_of(text_of("Concat", 2, 1, ""), x, {0, 1});
  expect_gradients_of(text_of("Concat", 2, 1, "concat_param { axis: -1 }"), {x[0], x[0]}, {0, 1});
  expect_gradients_of(text_of("Concat", 1, 1, ""), {x[0]}, {0});
}

TEST(Slice, CutsItsBottomAtTheGivenPointsOrEqually) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 60; ++trial) {
    const std::int64_t axes = pick(random, 1, 4);
    const auto [axis, written] = random_axis(random, axes);
    const bool equally = pick(random, 0, 1) == 0;
    const std::int64_t parts = pick(random, 1, 3);
    const std::int64_t equal = pick(random, 1, 3);
    std::string points;
    std::vector<std::int64_t> begins = {0};
    for (std::int64_t i = 0; i < parts; ++i) {
      if (i > 0 && !equally) points += base::concat(" slice_point: ", begins.back());
      begins.push_back(begins.back() + (equally ? equal : pick(random, 1, 3)));
    }
    Shape shape = random_shape(random, axes);
    shape[axis] = begins.back();
    const at::Tensor x = random_tensor(shape, random);
    const std::string text = text_of("Slice", 1, static_cast<std::size_t>(parts),
                                     base::concat("slice_param { axis: ", written, points, " }"));
    SCOPED_TRACE(text);
    const std::vector<at::Tensor> tops = tops_of(text, {x});
    ASSERT_EQ(tops.size(), static_cast<std::size_t>(parts));
    for (std::size_t part = 0; part < tops.size(); ++part) {
      Shape top = shape;
      top[axis] = begins[part + 1] - begins[part];
      EXPECT_EQ(tops[part].sizes().vec(), top);
      EXPECT_TRUE(tops[part].is_contiguous());
      expect_near(tops[part],
                  by_index(top,
                           [&](Shape index) {
                             index[axis] += begins[part];
                             return element(x, index);
                           }),
                  0);
    }
  }
}

TEST(Slice, KnowsTheOlderNameOfItsAxis) {
  const at::Tensor x = tensor_of({1, 2, 3, 4}, {2, 2});
  const std::vector<at::Tensor> tops = tops_of(text_of("Slice", 1, 2, "slice_param { slice_dim: 0 }"), {x});
  expect_near(tops[0], {1, 2}, 0);
  expect_near(tops[1], {3, 4}, 0);
}

TEST(Slice, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(4);
  const at::Tensor x = random_tensor({2, 5, 3}, random);
  expect_gradients_of(text_of("Slice", 1, 3, "slice_param { slice_point: 1 slice_point: 3 }"), {x}, {0});
  expect_gradients_of(text_of("Slice", 1, 3, "slice_param { axis: -1 }"), {x}, {0});
}

TEST(Crop, CutsOutWhatTheSecondBottomIsLarge) {
  std::mt19937_64 random(5);
  for (int trial = 0; trial < 60; ++trial) {
    const std::int64_t axes = pick(random, 1, 4);
    const auto [first, written] = random_axis(random, axes);
    const Shape whole = random_shape(random, axes);
    const std::int64_t kind = pick(random, 0, 2);  // no offset, one for all, one each
    Shape size = random_shape(random, axes);       // axes before the first do not count
    Shape offset(whole.size(), 0);
    std::int64_t least = 4;
    for (std::size_t i = first; i < whole.size(); ++i) {
      size[i] = pick(random, 1, whole[i]);
      least = std::min(least, whole[i] - size[i]);
    }
    const std::int64_t common = pick(random, 0, least);
    std::string offsets = kind == 1 ? base::concat(" offset: ", common) : "";
    for (std::size_t i = first; i < whole.size(); ++i) {
      if (kind == 1) offset[i] = common;
      if (kind == 2) offset[i] = pick(random, 0, whole[i] - size[i]);
      if (kind == 2) offsets += base::concat(" offset: ", offset[i]);
    }
    const std::string text = text_of("Crop", 2, 1, base::concat("crop_param { axis: ", written, offsets, " }"));
    SCOPED_TRACE(text + " of " + base::readable_shape(whole));
    const at::Tensor x = random_tensor(whole, random);
    const at::Tensor top = tops_of(text, {x, random_tensor(size, random)})[0];
    Shape wanted = whole;
    std::copy(size.begin() + static_cast<std::ptrdiff_t>(first), size.end(),
              wanted.begin() + static_cast<std::ptrdiff_t>(first));
    EXPECT_EQ(top.sizes().vec(), wanted);
    EXPECT_TRUE(top.is_contiguous());
    expect_near(top,
                by_index(wanted,
                         [&](Shape index) {
                           for (std::size_t i = 0; i < index.size(); ++i) index[i] += offset[i];
                           return element(x, index);
                         }),
                0);
  }
}

TEST(Crop, HasTheGradientsOfFiniteDifferencesAndNoneForTheSize) {
  std::mt19937_64 random(6);
  const std::vector<at::Tensor> x = {random_tensor({2, 3, 4, 5}, random), random_tensor({9, 9, 2, 3}, random)};
  expect_gradients_of(text_of("Crop", 2, 1, ""), x, {0});
  expect_gradients_of(text_of("Crop", 2, 1, "crop_param { offset: 1 offset: 2 }"), x, {0});
}

TEST(Tile, RepeatsItsBottomAlongAnAxis) {
  std::mt19937_64 random(7);
  for (int trial = 0; trial < 40; ++trial) {
    const std::int64_t axes = pick(random, 1, 4);
    const auto [axis, written] = random_axis(random, axes);
    const std::int64_t tiles = pick(random, 1, 3);
    const Shape shape = random_shape(random, axes);
    Shape tiled = shape;
    tiled[axis] *= tiles;
    const at::Tensor x = random_tensor(shape, random);
    const std::string text =
        text_of("Tile", 1, 1, base::concat("tile_param { axis: ", written, " tiles: ", tiles, " }"));
    SCOPED_TRACE(text);
    const at::Tensor top = tops_of(text, {x})[0];
    EXPECT_EQ(top.sizes().vec(), tiled);
    expect_near(top,
                by_index(tiled,
                         [&, place = axis](Shape index) {
                           index[place] %= shape[place];
                           return element(x, index);
                         }),
                0);
  }
}

TEST(Tile, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(8);
  const at::Tensor x = random_tensor({2, 3, 2}, random);
  expect_gradients_of(text_of("Tile", 1, 1, "tile_param { tiles: 3 }"), {x}, {0});
  expect_gradients_of(text_of("Tile", 1, 1, "tile_param { tiles: 2 axis: -3 }"), {x}, {0});
}

TEST(Pieces, ExplainWhatIsWrong) {
  EXPECT_EQ(setup_error(text_of("Concat", 2, 1, ""), {{2, 3}, {3, 3}}),
            "net.prototxt:1:1: layer \"l\" (Concat) wants bottoms that differ along axis 1 only; bottom \"x0\" is "
            "[2, 3], and bottom \"x1\" is [3, 3]");
  EXPECT_EQ(setup_error(text_of("Concat", 2, 1, "concat_param { axis: 1 concat_dim: 1 }"), {{1, 1}, {1, 1}}),
            "net.prototxt:2:24: layer \"l\" (Concat) has both axis and concat_dim, an older name for it; give one");
  EXPECT_EQ(setup_error(text_of("Slice", 1, 2, ""), {{2, 3}}),
            "net.prototxt:1:1: layer \"l\" (Slice) has 2 tops, into which axis 1 cannot be divided equally; bottom "
            "\"x0\" is [2, 3]; give slice_point");
  EXPECT_EQ(setup_error(text_of("Slice", 1, 2, "slice_param { slice_point: 1 slice_point: 2 }"), {{2, 3}}),
            "net.prototxt:2:15: layer \"l\" (Slice) has 2 slice_point for 2 tops; there must be one less than tops, or "
            "none for equal parts");
  EXPECT_EQ(setup_error(text_of("Slice", 1, 3, "slice_param { slice_point: 2 slice_point: 2 }"), {{2, 3}}),
            "net.prototxt:2:30: layer \"l\" (Slice) has slice_point 2; they must rise from above 0 to below the extent "
            "of axis 1; bottom \"x0\" is [2, 3]");
  EXPECT_EQ(setup_error(text_of("Slice", 1, 2, "slice_param { slice_point: 3 }"), {{2, 3}}),
            "net.prototxt:2:15: layer \"l\" (Slice) has slice_point 3; they must rise from above 0 to below the extent "
            "of axis 1; bottom \"x0\" is [2, 3]");
  EXPECT_EQ(setup_error(text_of("Crop", 2, 1, "crop_param { axis: 1 offset: 2 }"), {{2, 4}, {2, 3}}),
            "net.prototxt:1:1: layer \"l\" (Crop) cannot cut 3 elements from 2 on out of axis 1; bottom \"x0\" is "
            "[2, 4], and bottom \"x1\" is [2, 3]");
  EXPECT_EQ(setup_error(text_of("Crop", 2, 1, "crop_param { axis: 1 offset: 0 offset: 0 }"), {{2, 4}, {2, 3}}),
            "net.prototxt:2:22: layer \"l\" (Crop) has 2 offsets for 1 axes that it cuts; give one for all, or one "
            "each; bottom \"x0\" is [2, 4]");
  EXPECT_EQ(setup_error(text_of("Crop", 2, 1, "crop_param { axis: 1 }"), {{2, 4}, {2}}),
            "net.prototxt:1:1: layer \"l\" (Crop) wants a second bottom with the axes of the first; bottom \"x0\" is "
            "[2, 4], and bottom \"x1\" is [2]");
  EXPECT_EQ(setup_error(text_of("Tile", 1, 1, ""), {{2, 4}}),
            "net.prototxt:1:1: layer \"l\" (Tile) needs tiles, at least 1");
}

}  // namespace
}  // namespace poseidon::caffe
