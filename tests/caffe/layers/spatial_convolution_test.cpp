// Convolution, Deconvolution and Im2col over any number of spatial axes, against their definitions in plain loops.
#include <ATen/ops/empty.h>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

using Values = std::vector<std::int64_t>;

// The settings of one layer, a value for each spatial axis.
struct Slide {
  Values kernel, stride, pad, dilation;
  std::int64_t outputs = 1;
  std::int64_t group = 1;
};

std::string repeated(std::string_view field, const Values& values) {
  std::string text;
  for (const std::int64_t value : values) text += base::concat(" ", field, ": ", value);
  return text;
}

std::string text_of(std::string_view type, const Slide& s, std::string_view more = "") {
  const std::string of_weights =
      type == "Im2col" ? ""
                       : base::concat(" num_output: ", s.outputs, " group: ", s.group,
                                      " weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' }");
  return base::concat("name: 'c' type: '", type, "' bottom: 'x' top: 'y' convolution_param {",
                      repeated("kernel_size", s.kernel), repeated("stride", s.stride), repeated("pad", s.pad),
                      repeated("dilation", s.dilation), of_weights, " ", more, " }");
}

// Counts through all indices of a shape in row-major order: index 0, 1, ... of it as one for each axis.
Values unravel(std::int64_t index, const Shape& shape) {
  Values indices(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0; index /= shape[axis]) indices[axis] = index % shape[axis];
  return indices;
}

std::int64_t ravel(const Values& indices, const Shape& shape) {
  std::int64_t index = 0;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) index = index * shape[axis] + indices[axis];
  return index;
}

Shape spatial(const Shape& shape) {
  return {shape.begin() + 2, shape.end()};
}

// Tells `visit` of every pair that a window joins: the index of a place among `places`, of a tap in the kernel, and of
// the element of `extents` that lies under the tap. Taps in the padding are left out.
template <typename Visit>
void for_each_touch(const Slide& s, const Shape& places, const Shape& extents, const Visit& visit) {
  for (std::int64_t place = 0; place < elements_of(places); ++place) {
    for (std::int64_t tap = 0; tap < elements_of(s.kernel); ++tap) {
      const Values at = unravel(place, places);
      const Values within = unravel(tap, s.kernel);
      Values under;
      bool inside = true;
      for (std::size_t axis = 0; axis < places.size(); ++axis) {
        under.push_back(at[axis] * s.stride[axis] - s.pad[axis] + within[axis] * s.dilation[axis]);
        inside = inside && under[axis] >= 0 && under[axis] < extents[axis];
      }
      if (inside)
        visit(static_cast<std::size_t>(place), static_cast<std::size_t>(tap),
              static_cast<std::size_t>(ravel(under, extents)));
    }
  }
}

// x [records, channels, extents...] as values, and its numbers.
struct Image {
  std::vector<double> values;
  Shape shape;
  std::size_t records() const { return static_cast<std::size_t>(shape[0]); }
  std::size_t channels() const { return static_cast<std::size_t>(shape[1]); }
  std::size_t size() const { return static_cast<std::size_t>(elements_of(spatial(shape))); }
};

// The weight is [outputs, channels / group, taps]. Adds up each output over its group's channels.
std::vector<double> naive_convolution(const Image& x, const std::vector<double>& weight,
                                      const std::vector<double>& bias, const Slide& s, const Shape& top) {
  const Image y{.values = {}, .shape = top};
  const auto taps = static_cast<std::size_t>(elements_of(s.kernel));
  const auto groups = static_cast<std::size_t>(s.group);
  const std::size_t inputs = x.channels() / groups;
  std::vector<double> out(static_cast<std::size_t>(elements_of(top)));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = bias[i / y.size() % y.channels()];
  for_each_touch(s, spatial(top), spatial(x.shape), [&](std::size_t place, std::size_t tap, std::size_t under) {
    for (std::size_t n = 0; n < x.records(); ++n) {
      for (std::size_t o = 0; o < y.channels(); ++o) {
        for (std::size_t i = 0; i < inputs; ++i) {
          const std::size_t channel = o / (y.channels() / groups) * inputs + i;
          out[(n * y.channels() + o) * y.size() + place] +=
              weight[(o * inputs + i) * taps + tap] * x.values[(n * x.channels() + channel) * x.size() + under];
        }
      }
    }
  });
  return out;
}

// The weight is [channels, outputs / group, taps]: what each element of the bottom adds to the window that it stands
// for.
std::vector<double> naive_deconvolution(const Image& x, const std::vector<double>& weight,
                                        const std::vector<double>& bias, const Slide& s, const Shape& top) {
  const Image y{.values = {}, .shape = top};
  const auto taps = static_cast<std::size_t>(elements_of(s.kernel));
  const auto groups = static_cast<std::size_t>(s.group);
  const std::size_t outputs = y.channels() / groups;
  std::vector<double> out(static_cast<std::size_t>(elements_of(top)));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = bias[i / y.size() % y.channels()];
  for_each_touch(s, spatial(x.shape), spatial(top), [&](std::size_t place, std::size_t tap, std::size_t under) {
    for (std::size_t n = 0; n < x.records(); ++n) {
      for (std::size_t c = 0; c < x.channels(); ++c) {
        for (std::size_t o = 0; o < outputs; ++o) {
          const std::size_t output = c / (x.channels() / groups) * outputs + o;
          out[(n * y.channels() + output) * y.size() + under] +=
              weight[(c * outputs + o) * taps + tap] * x.values[(n * x.channels() + c) * x.size() + place];
        }
      }
    }
  });
  return out;
}

// Kernel 1 to 3, stride 1 to 2, pad below the kernel, dilation 1 to 2, on `axes` axes.
Slide random_slide(std::mt19937_64& random, std::size_t axes) {
  Slide s;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    s.kernel.push_back(pick(random, 1, 3));
    s.stride.push_back(pick(random, 1, 2));
    s.pad.push_back(pick(random, 0, s.kernel.back() - 1));
    s.dilation.push_back(pick(random, 1, 2));
  }
  s.group = pick(random, 1, 2);
  s.outputs = s.group * pick(random, 1, 2);
  return s;
}

Shape random_bottom(std::mt19937_64& random, const Slide& s) {
  Shape bottom = {pick(random, 1, 2), s.group * pick(random, 1, 2)};
  for (std::size_t axis = 0; axis < s.kernel.size(); ++axis) bottom.push_back(pick(random, 5, 6));
  return bottom;
}

using Naive = std::vector<double> (*)(const Image&, const std::vector<double>&, const std::vector<double>&,
                                      const Slide&, const Shape&);

void expect_agreement(std::string_view type, Naive naive, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 40; ++trial) {
    const auto axes = static_cast<std::size_t>(1 + trial % 4);
    const Slide s = random_slide(random, axes);
    const Shape bottom = random_bottom(random, s);
    const std::string text = text_of(type, s, trial % 3 == 0 ? "force_nd_im2col: true engine: CAFFE" : "");
    SCOPED_TRACE(text + " of " + base::readable_shape(bottom));
    Made made = make_layer(text, {bottom});
    const at::Tensor x = random_tensor(bottom, random);
    const at::Tensor top = made.layer->forward({}, {x})[0];
    ASSERT_EQ(top.sizes().vec(), made.tops[0]);
    const std::vector<Parameter>& arrays = made.layer->parameters();
    expect_near(top,
                naive({values_of(x), bottom}, values_of(arrays[0].value), values_of(arrays[1].value), s, made.tops[0]),
                1e-10);
    if (::testing::Test::HasFailure()) return;
  }
}

void expect_gradients_over_axes(std::string_view type) {
  std::mt19937_64 random(11);
  for (const std::size_t axes : {1u, 2u, 3u, 4u}) {
    const Slide s{.kernel = Values(axes, 2),
                  .stride = Values(axes, 2),
                  .pad = Values(axes, 1),
                  .dilation = Values(axes, 1),
                  .outputs = 2,
                  .group = 2};
    Shape bottom = {1, 2};
    bottom.insert(bottom.end(), axes, axes > 2 ? 2 : 3);
    SCOPED_TRACE(text_of(type, s));
    Made made = make_layer(text_of(type, s), {bottom});
    expect_gradients(*made.layer, {random_tensor(bottom, random)}, {0});
  }
}

TEST(SpatialConvolution, AgreesWithPlainLoopsOverOneToFourAxes) {
  expect_agreement("Convolution", naive_convolution, 1);
}

TEST(SpatialConvolution, HasTheGradientsOfFiniteDifferences) {
  expect_gradients_over_axes("Convolution");
}

TEST(SpatialConvolution, CountsRecordsOnAllAxesBeforeTheChannels) {
  std::mt19937_64 random(2);
  const Slide s{.kernel = {2}, .stride = {1}, .pad = {0}, .dilation = {1}, .outputs = 3};
  const at::Tensor x = random_tensor({2, 3, 2, 5}, random);
  Made flat = make_layer(text_of("Convolution", s), {{6, 2, 5}});
  for (const std::string_view axis : {"axis: 2", "axis: -2"}) {
    Made made = make_layer(text_of("Convolution", s, axis), {{2, 3, 2, 5}});
    EXPECT_EQ(made.tops, (std::vector<Shape>{{2, 3, 3, 4}}));
    expect_near(made.layer->forward({}, {x})[0], values_of(flat.layer->forward({}, {x.view({6, 2, 5})})[0]), 0);
  }
}

TEST(SpatialConvolution, IsAProductOverChannelsWhereThereAreNoSpatialAxes) {
  for (const std::string_view type : {"Convolution", "Deconvolution"}) {
    Made made = make_layer(base::concat("name: 'c' type: '", type,
                                        "' bottom: 'x' top: 'y' convolution_param { num_output: 2 kernel_size: 3 }"),
                           {{1, 2}});
    EXPECT_EQ(made.tops, (std::vector<Shape>{{1, 2}}));
    EXPECT_EQ(made.layer->parameters()[0].shape, (Shape{2, 2}));
    made.layer->parameters()[0].value = tensor_of({1, 2, 3, 4}, {2, 2});
    made.layer->parameters()[1].value = tensor_of({100, 200}, {2});
    // Rows of the weight are outputs, or inputs.
    expect_near(made.layer->forward({}, {tensor_of({5, 6}, {1, 2})})[0],
                type == "Convolution" ? std::vector<double>{117, 239} : std::vector<double>{123, 234}, 1e-12);
  }
}

TEST(Deconvolution, SpreadsEachElementOverItsWindowWorkedByHand) {
  Made made = make_layer(
      "name: 'c' type: 'Deconvolution' bottom: 'x' top: 'y' convolution_param { num_output: 1 kernel_size: 3 stride: 2 "
      "}",
      {{1, 1, 2}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{1, 1, 5}}));
  made.layer->parameters()[0].value = tensor_of({1, 2, 3}, {1, 1, 3});
  made.layer->parameters()[1].value = tensor_of({100}, {1});
  // 10 (1 2 3) and 20 (1 2 3), two places apart.
  expect_near(made.layer->forward({}, {tensor_of({10, 20}, {1, 1, 2})})[0], {110, 120, 150, 140, 160}, 1e-12);
}

TEST(Deconvolution, AgreesWithPlainLoopsOverOneToFourAxes) {
  expect_agreement("Deconvolution", naive_deconvolution, 3);
}

TEST(Deconvolution, HasTheGradientsOfFiniteDifferences) {
  expect_gradients_over_axes("Deconvolution");
}

TEST(Deconvolution, InterpolatesWithTheBilinearFiller) {
  // As in fully convolutional nets: twice as large, each channel by itself, no bias.
  Made made = make_layer(R"(name: 'up' type: 'Deconvolution' bottom: 'x' top: 'y' convolution_param {
      num_output: 2 group: 2 kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: 'bilinear' } })",
                         {{1, 2, 1, 2}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{1, 2, 2, 4}}));
  ASSERT_EQ(made.layer->parameters().size(), 1u);
  EXPECT_EQ(made.layer->parameters()[0].shape, (Shape{2, 1, 4, 4}));
  // Along a row the taps are 1/4, 3/4, 3/4, 1/4; across, the one row counts for 3/4 in both rows of the top.
  const auto row = [](double left, double right) {
    return std::vector<double>{0.75 * 0.75 * left, 0.75 * (0.75 * left + 0.25 * right),
                               0.75 * (0.25 * left + 0.75 * right), 0.75 * 0.75 * right};
  };
  std::vector<double> wanted;
  for (const std::vector<double>& values : {row(8, 16), row(8, 16), row(-4, 0), row(-4, 0)}) {
    wanted.insert(wanted.end(), values.begin(), values.end());
  }
  expect_near(made.layer->forward({}, {tensor_of({8, 16, -4, 0}, {1, 2, 1, 2})})[0], wanted, 1e-12);
}

TEST(Deconvolution, ExplainsWhatIsWrong) {
  EXPECT_EQ(
      setup_error("name: 'c' type: 'Deconvolution' bottom: 'x' top: 'y' convolution_param { num_output: 1 kernel_size: "
                  "2 pad: 1 }",
                  {{1, 1, 1}}),
      "net.prototxt:1:1: layer \"c\" (Deconvolution) makes 2 elements along axis 2 and has a pad of 1 to take away on "
      "either side: bottom \"x\" is [1, 1, 1]");
}

TEST(Im2col, LaysTheWindowsOutAsChannels) {
  Made made = make_layer(text_of("Im2col", {.kernel = {2}, .stride = {1}, .pad = {1}, .dilation = {1}}), {{1, 2, 3}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{1, 4, 4}}));
  // Channel 0 (1 2 3) under the first and the second tap, then channel 1 (4 5 6).
  expect_near(made.layer->forward({}, {tensor_of({1, 2, 3, 4, 5, 6}, {1, 2, 3})})[0],
              {0, 1, 2, 3, 1, 2, 3, 0, 0, 4, 5, 6, 4, 5, 6, 0}, 0);
}

TEST(Im2col, AgreesWithPlainLoopsOverOneToFourAxes) {
  std::mt19937_64 random(5);
  for (int trial = 0; trial < 40; ++trial) {
    const Slide s = random_slide(random, static_cast<std::size_t>(1 + trial % 4));
    const Shape bottom = random_bottom(random, s);
    SCOPED_TRACE(text_of("Im2col", s) + " of " + base::readable_shape(bottom));
    Made made = make_layer(text_of("Im2col", s), {bottom});
    const Image x{.values = values_of(random_tensor(bottom, random)), .shape = bottom};
    const auto taps = static_cast<std::size_t>(elements_of(s.kernel));
    const Shape places = spatial(made.tops[0]);
    const auto count = static_cast<std::size_t>(elements_of(places));
    std::vector<double> wanted(static_cast<std::size_t>(elements_of(made.tops[0])));
    for_each_touch(s, places, spatial(bottom), [&](std::size_t place, std::size_t tap, std::size_t under) {
      for (std::size_t map = 0; map < x.records() * x.channels(); ++map) {
        wanted[(map * taps + tap) * count + place] = x.values[map * x.size() + under];
      }
    });
    EXPECT_EQ(values_of(made.layer->forward({}, {tensor_of(x.values, bottom)})[0]), wanted);
    if (HasFailure()) return;
  }
}

TEST(Im2col, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(6);
  Made made =
      make_layer(text_of("Im2col", {.kernel = {3, 2}, .stride = {1, 2}, .pad = {1, 0}, .dilation = {1, 2}}, "axis: -3"),
                 {{2, 2, 4, 5}});
  expect_gradients(*made.layer, {random_tensor({2, 2, 4, 5}, random)}, {0});
}

}  // namespace
}  // namespace poseidon::caffe
