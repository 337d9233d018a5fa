// Convolution of images. Other numbers of axes and the other directions are in spatial_convolution_test.cpp.
#include <ATen/ops/empty.h>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

struct Convolved {
  std::int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation, group;
};

// The definition, in plain loops.
std::vector<double> naive(const at::Tensor& image, const at::Tensor& weight, const at::Tensor& bias, const Convolved& c,
                          const Shape& top) {
  const auto x = image.accessor<double, 4>();
  const at::Tensor w_values = weight.detach();
  const auto w = w_values.accessor<double, 4>();
  const std::vector<double> b = values_of(bias);
  const std::int64_t outputs_per_group = top[1] / c.group;
  std::vector<double> out;
  for (std::int64_t n = 0; n < top[0]; ++n) {
    for (std::int64_t o = 0; o < top[1]; ++o) {
      for (std::int64_t y = 0; y < top[2]; ++y) {
        for (std::int64_t z = 0; z < top[3]; ++z) {
          double sum = b[static_cast<std::size_t>(o)];
          for (std::int64_t i = 0; i < weight.size(1); ++i) {
            for (std::int64_t ky = 0; ky < c.kernel_h; ++ky) {
              for (std::int64_t kx = 0; kx < c.kernel_w; ++kx) {
                const std::int64_t row = y * c.stride_h - c.pad_h + ky * c.dilation;
                const std::int64_t column = z * c.stride_w - c.pad_w + kx * c.dilation;
                if (row < 0 || column < 0 || row >= image.size(2) || column >= image.size(3)) continue;
                sum += w[o][i][ky][kx] * x[n][o / outputs_per_group * weight.size(1) + i][row][column];
              }
            }
          }
          out.push_back(sum);
        }
      }
    }
  }
  return out;
}

std::string text_of(std::int64_t outputs, const Convolved& c) {
  return base::concat("name: 'c' type: 'Convolution' bottom: 'x' top: 'y' convolution_param { num_output: ", outputs,
                      " kernel_h: ", c.kernel_h, " kernel_w: ", c.kernel_w, " stride_h: ", c.stride_h,
                      " stride_w: ", c.stride_w, " pad_h: ", c.pad_h, " pad_w: ", c.pad_w, " dilation: ", c.dilation,
                      " group: ", c.group, " weight_filler { type: 'gaussian' } bias_filler { type: 'gaussian' } }");
}

TEST(Convolution, IsTheSumOverTheWindowWorkedByHand) {
  Made made = make_layer(
      "name: 'c' type: 'Convolution' bottom: 'x' top: 'y' convolution_param { num_output: 1 kernel_size: 2 }",
      {{1, 1, 2, 3}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{1, 1, 1, 2}}));
  made.layer->parameters()[0].value = tensor_of({1, 2, 3, 4}, {1, 1, 2, 2});
  made.layer->parameters()[1].value = tensor_of({100}, {1});
  // 1·1 + 2·2 + 3·4 + 4·5 + 100 and 1·2 + 2·3 + 3·5 + 4·6 + 100.
  expect_near(made.layer->forward({}, {tensor_of({1, 2, 3, 4, 5, 6}, {1, 1, 2, 3})})[0], {137, 147}, 1e-12);
}

TEST(Convolution, AgreesWithPlainLoopsForRandomShapes) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 60; ++trial) {
    const Convolved c{.kernel_h = pick(random, 1, 4),
                      .kernel_w = pick(random, 1, 4),
                      .stride_h = pick(random, 1, 3),
                      .stride_w = pick(random, 1, 3),
                      .pad_h = pick(random, 0, 3),
                      .pad_w = pick(random, 0, 3),
                      .dilation = pick(random, 1, 2),
                      .group = pick(random, 1, 3)};
    const Shape bottom = {pick(random, 1, 3), c.group * pick(random, 1, 3), pick(random, 7, 11), pick(random, 7, 11)};
    const std::int64_t outputs = c.group * pick(random, 1, 3);
    SCOPED_TRACE(text_of(outputs, c) + " of " + base::readable_shape(bottom));
    Made made = make_layer(text_of(outputs, c), {bottom});
    const at::Tensor image = random_tensor(bottom, random);
    const at::Tensor top = made.layer->forward({}, {image})[0];
    EXPECT_EQ(top.sizes().vec(), made.tops[0]);
    const std::vector<Parameter>& arrays = made.layer->parameters();
    expect_near(top, naive(image, arrays[0].value, arrays[1].value, c, made.tops[0]), 1e-10);
    if (HasFailure()) return;
  }
}

TEST(Convolution, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(2);
  const Convolved options[] = {
      {.kernel_h = 3, .kernel_w = 2, .stride_h = 1, .stride_w = 2, .pad_h = 1, .pad_w = 0, .dilation = 1, .group = 1},
      {.kernel_h = 2, .kernel_w = 2, .stride_h = 1, .stride_w = 1, .pad_h = 0, .pad_w = 1, .dilation = 2, .group = 2}};
  for (const Convolved& c : options) {
    Made made = make_layer(text_of(4, c), {{2, 4, 5, 5}});
    expect_gradients(*made.layer, {random_tensor({2, 4, 5, 5}, random)}, {0});
  }
}

TEST(Convolution, LeavesTheBiasOutOnRequest) {
  Made made = make_layer(R"(name: 'c' type: 'Convolution' bottom: 'x' top: 'y'
      convolution_param { num_output: 2 kernel_size: 3 bias_term: false weight_filler { type: 'gaussian' } })",
                         {{1, 2, 4, 4}});
  EXPECT_EQ(made.layer->parameters().size(), 1u);
  std::mt19937_64 random(3);
  expect_gradients(*made.layer, {random_tensor({1, 2, 4, 4}, random)}, {0});
}

TEST(Convolution, AppliesOneKernelToEveryBottom) {
  Made made = make_layer(R"(name: 'c' type: 'Convolution' bottom: 'x' bottom: 'z' top: 'y' top: 'w'
      convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: 'gaussian' } })",
                         {{1, 2, 4, 4}, {2, 2, 5, 4}});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{1, 2, 2, 2}, {2, 2, 3, 2}}));
  std::mt19937_64 random(4);
  expect_gradients(*made.layer, {random_tensor({1, 2, 4, 4}, random), random_tensor({2, 2, 5, 4}, random)}, {0, 1});
}

TEST(Convolution, TakesSizesOncePerAxisOrOnceForBoth) {
  const auto top = [](std::string_view settings) {
    return make_layer(
               base::concat("name: 'c' type: 'Convolution' bottom: 'x' top: 'y' convolution_param { num_output: 5 ",
                            settings, " }"),
               {{2, 3, 10, 20}})
        .tops[0];
  };
  EXPECT_EQ(top("kernel_size: 3"), (Shape{2, 5, 8, 18}));
  EXPECT_EQ(top("kernel_size: 3 kernel_size: 5"), (Shape{2, 5, 8, 16}));
  EXPECT_EQ(top("kernel_h: 3 kernel_w: 5 pad_w: 2"), (Shape{2, 5, 8, 20}));
  EXPECT_EQ(top("kernel_size: 4 stride: 2"), (Shape{2, 5, 4, 9}));
  EXPECT_EQ(top("kernel_size: 3 dilation: 2 dilation: 3"), (Shape{2, 5, 6, 14}));
}

TEST(Convolution, ExplainsWhatIsWrong) {
  const auto error = [](std::string_view settings, const Shape& bottom) {
    return setup_error(
        base::concat("name: 'c' type: 'Convolution' bottom: 'x' top: 'y'\nconvolution_param {\n", settings, "\n}"),
        {bottom});
  };
  EXPECT_EQ(
      error("num_output: 2 kernel_size: 3", {2}),
      "net.prototxt:1:1: layer \"c\" (Convolution) has axis 1, but its bottom \"x\" is [2], which has axes -1 to 0");
  EXPECT_EQ(
      error("num_output: 2 kernel_size: 6", {1, 3, 5, 9}),
      "net.prototxt:1:1: layer \"c\" (Convolution) has a kernel that reaches over 6 elements of axis 2, which has 5 "
      "with its padding: bottom \"x\" is [1, 3, 5, 9]");
  EXPECT_EQ(error("kernel_size: 3", {1, 3, 5, 5}),
            "net.prototxt:2:1: layer \"c\" (Convolution) needs num_output, at least 1");
  EXPECT_EQ(error("num_output: 4\ngroup: 2 kernel_size: 3", {1, 3, 5, 5}),
            "net.prototxt:4:1: layer \"c\" (Convolution) has 2 groups, which do not divide its channels: bottom \"x\" "
            "is [1, 3, 5, 5]");
  EXPECT_EQ(error("num_output: 3\ngroup: 2 kernel_size: 3", {1, 4, 5, 5}),
            "net.prototxt:4:1: layer \"c\" (Convolution) has num_output 3, which 2 groups do not divide");
  EXPECT_EQ(error("num_output: 3\nkernel_size: 3 kernel_h: 3", {1, 4, 5, 5}),
            "net.prototxt:4:1: layer \"c\" (Convolution) has both kernel_size and kernel_h or kernel_w; give one");
  EXPECT_EQ(error("num_output: 3\nkernel_size: 3 stride: 0", {1, 4, 5, 5}),
            "net.prototxt:4:16: layer \"c\" (Convolution) has stride 0x0; it must be at least 1");
  EXPECT_EQ(error("num_output: 3", {1, 4, 5, 5}),
            "net.prototxt:2:1: layer \"c\" (Convolution) has kernel_size 0x0; it must be at least 1");
  EXPECT_EQ(
      error("num_output: 3\nkernel_size: 1 kernel_size: 2\nkernel_size: 3", {1, 4, 5, 5}),
      "net.prototxt:5:1: layer \"c\" (Convolution) has 3 values of kernel_size for 2 spatial axes; give one for all, "
      "or one each");
  EXPECT_EQ(
      error("num_output: 3\nkernel_size: 1 kernel_size: 2", {1, 4, 5, 5, 5}),
      "net.prototxt:4:1: layer \"c\" (Convolution) has 2 values of kernel_size for 3 spatial axes; give one for all, "
      "or one each");
  EXPECT_EQ(error("num_output: 3 kernel_size: 1\npad_h: 1", {1, 4, 5, 5, 5}),
            "net.prototxt:4:1: layer \"c\" (Convolution) has pad_h, which is for 2 spatial axes, and its bottom has 3");
  EXPECT_EQ(error("num_output: 3\nkernel_size: 2000 pad: 1000000", {1, 4, 5, 5, 5}),
            "net.prototxt:4:1: layer \"c\" (Convolution) has a kernel of 2000x2000x2000; it must have fewer than 2^31 "
            "elements");
  EXPECT_EQ(error("num_output: 3 kernel_size: 1\nstride: 4000000000", {1, 4, 5, 5}),
            "net.prototxt:4:1: layer \"c\" (Convolution) has stride 4000000000x4000000000; it must be below 2^31");
}

}  // namespace
}  // namespace poseidon::caffe
