// The shapes of what a record of HDF5 files has in it, as the child tells them to the trainer: "3x4x5,,10" for three
// datasets, of which the second has a single number in each row.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace poseidon::caffe {

std::string row_shapes_text(const std::vector<std::vector<std::int64_t>>& shapes);
// Of a text that row_shapes_text() has made for at least one shape.
std::vector<std::vector<std::int64_t>> parse_row_shapes(std::string_view text);

}  // namespace poseidon::caffe
