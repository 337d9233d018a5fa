#include "engines/caffe/data/hdf5_file.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>
#include <map>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe::hdf5 {
namespace {

using base::concat;
namespace fs = std::filesystem;

// Deflate, the strongest filter that files have, makes at most 1,032 bytes of one.
constexpr std::uint64_t kCompressionMax = 1032;
// An array in a .caffemodel has less than 2 GiB; one in an HDF5 file is held to the same.
constexpr std::uint64_t kBlobBytesMax = std::uint64_t{1} << 31;
constexpr std::size_t kTextBytesMax = 1 << 20;
// Chunks of datasets that grow: of about this size.
constexpr std::uint64_t kChunkBytes = 1 << 20;
// What an open dataset may keep of its chunks, so that rows in random order do not unpack a chunk each.
constexpr std::size_t kChunkCacheBytes = std::size_t{64} << 20;

// What the library says was wrong, at the place nearest to the mistake; and forgets it.
std::string last_error() {
  std::string text;
  const auto take = [](unsigned, const H5E_error2_t* error, void* into) -> herr_t {
    auto& first = *static_cast<std::string*>(into);
    if (first.empty() && error->desc != nullptr) first = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "" : concat(" (", text, ")");
}

// Before anything else is asked of the library.
void prepare_library() {
  // It would close at the end of the process what is open: nothing but a file whose closing the disk has refused, over
  // which it dies.
  H5dont_atexit();
  // It would print each error.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

// Files in memory have names as well, and none may be open twice.
std::string memory_name() {
  static std::atomic<std::uint64_t> count{0};
  return concat("in memory ", count++);
}

// Closes an id at the end of a block.
class Scoped {
 public:
  Scoped(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Scoped() {
    if (id_ >= 0) close_(id_);
  }
  Scoped(const Scoped&) = delete;
  Scoped& operator=(const Scoped&) = delete;
  hid_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

std::uint64_t elements_of(const std::vector<std::int64_t>& shape) {
  std::uint64_t product = 1;
  for (const std::int64_t extent : shape) {
    if (__builtin_mul_overflow(product, static_cast<std::uint64_t>(extent), &product))
      return std::numeric_limits<std::uint64_t>::max();
  }
  return product;
}

std::vector<hsize_t> extents_of(const std::vector<std::int64_t>& shape) {
  return {shape.begin(), shape.end()};
}

}  // namespace

struct Object::Handle {
  const hid_t id;
  const std::shared_ptr<const Handle> parent;  // stays open as long

  Handle(hid_t opened, std::shared_ptr<const Handle> in) : id(opened), parent(std::move(in)) {}
  ~Handle() {
    if (id >= 0) H5Idec_ref(id);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

Object Object::open(const fs::path& file) {
  prepare_library();
  std::error_code failure;
  if (!fs::is_regular_file(file, failure)) {
    throw ConfigError(concat(file.string(), fs::exists(file, failure) ? ": is no file" : ": there is no such file"));
  }
  Object object(std::make_shared<Handle>(H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), nullptr), file.string());
  if (object.handle_->id < 0) object.fail(concat(" is no HDF5 file, or it is truncated or damaged", last_error()));
  return object;
}

Object Object::open_bytes(std::string_view bytes, const std::string& name) {
  prepare_library();
  const Scoped access(H5Pcreate(H5P_FILE_ACCESS), &H5Pclose);
  H5Pset_fapl_core(access.get(), std::size_t{1} << 20, false);
  // Reads only, and copies.
  H5Pset_file_image(access.get(), const_cast<char*>(bytes.data()), bytes.size());
  Object object(std::make_shared<Handle>(H5Fopen(memory_name().c_str(), H5F_ACC_RDONLY, access.get()), nullptr), name);
  if (object.handle_->id < 0) object.fail(concat(" is no HDF5 file, or it is truncated or damaged", last_error()));
  return object;
}

Object Object::create() {
  prepare_library();
  const Scoped access(H5Pcreate(H5P_FILE_ACCESS), &H5Pclose);
  H5Pset_fapl_core(access.get(), std::size_t{16} << 20, false);
  Object object(
      std::make_shared<Handle>(H5Fcreate(memory_name().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), nullptr),
      "");
  if (object.handle_->id < 0) object.fail(concat("cannot make an HDF5 file", last_error()));
  return object;
}

std::string Object::bytes() const {
  H5Fflush(handle_->id, H5F_SCOPE_GLOBAL);
  const ssize_t size = H5Fget_file_image(handle_->id, nullptr, 0);
  if (size < 0) fail(concat("cannot be written", last_error()));
  std::string bytes(static_cast<std::size_t>(size), '\0');
  H5Fget_file_image(handle_->id, bytes.data(), bytes.size());
  return bytes;
}

std::vector<std::string> Object::names() const {
  std::vector<std::string> names;
  const auto take = [](hid_t, const char* name, const H5L_info_t*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  hsize_t place = 0;
  if (H5Literate(handle_->id, H5_INDEX_NAME, H5_ITER_INC, &place, take, &names) < 0) {
    fail(concat(": its contents cannot be listed; it is damaged", last_error()));
  }
  return names;
}

bool Object::has(const std::string& name) const {
  return H5Lexists(handle_->id, name.c_str(), H5P_DEFAULT) > 0;
}

bool Object::is_group(const std::string& name) const {
  H5O_info_t info{};
  if (H5Oget_info_by_name(handle_->id, name.c_str(), &info, H5P_DEFAULT) < 0) {
    fail(concat(": ", name, " cannot be opened; it is damaged", last_error()));
  }
  return info.type == H5O_TYPE_GROUP;
}

Object Object::at(const std::string& name) const {
  if (!has_path(name)) fail(concat(": has no ", name));
  hid_t id = -1;
  if (is_group(name)) {
    id = H5Gopen2(handle_->id, name.c_str(), H5P_DEFAULT);
  } else {
    const Scoped access(H5Pcreate(H5P_DATASET_ACCESS), &H5Pclose);
    H5Pset_chunk_cache(access.get(), 12'421, kChunkCacheBytes, 1);
    id = H5Dopen2(handle_->id, name.c_str(), access.get());
  }
  const std::string place = concat(place_, place_.find(": /") == place_.npos ? ": /" : "/", name);
  if (id < 0) fail(concat(": ", name, " cannot be opened; it is damaged", last_error()));
  return {std::make_shared<Handle>(id, handle_), place};
}

Object Object::make_group(const std::string& name) const {
  const Scoped links(H5Pcreate(H5P_LINK_CREATE), &H5Pclose);
  H5Pset_create_intermediate_group(links.get(), 1);
  if (has_path(name)) return at(name);
  const hid_t id = H5Gcreate2(handle_->id, name.c_str(), links.get(), H5P_DEFAULT, H5P_DEFAULT);
  if (id < 0) fail(concat("the group ", name, " cannot be made", last_error()));
  return {std::make_shared<Handle>(id, handle_), concat(place_, "/", name)};
}

bool Object::has_path(const std::string& name) const {
  for (std::size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1)) {
    if (slash > 0 && !has(name.substr(0, slash))) return false;
  }
  return has(name);
}

std::vector<std::int64_t> Object::shape() const {
  const Scoped space(H5Dget_space(handle_->id), &H5Sclose);
  const int axes = space.ok() ? H5Sget_simple_extent_ndims(space.get()) : -1;
  if (axes < 0) fail(concat(": is no dataset, or it is damaged", last_error()));
  std::vector<hsize_t> extents(static_cast<std::size_t>(axes));
  H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
  std::vector<std::int64_t> shape;
  for (const hsize_t extent : extents) {
    if (extent > static_cast<hsize_t>(std::numeric_limits<std::int64_t>::max()))
      fail(": has an axis that is longer than any; it is damaged");
    shape.push_back(static_cast<std::int64_t>(extent));
  }
  return shape;
}

bool Object::is_double() const {
  const Scoped type(H5Dget_type(handle_->id), &H5Tclose);
  return type.ok() && H5Tget_class(type.get()) == H5T_FLOAT && H5Tget_size(type.get()) == sizeof(double);
}

void Object::require_numbers() const {
  const Scoped type(H5Dget_type(handle_->id), &H5Tclose);
  const H5T_class_t kind = type.ok() ? H5Tget_class(type.get()) : H5T_NO_CLASS;
  if (kind != H5T_FLOAT && kind != H5T_INTEGER) fail(": has no numbers but something else");
  const std::vector<std::int64_t> extents = shape();
  const std::uint64_t elements = elements_of(extents);
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements, std::uint64_t{H5Tget_size(type.get())}, &bytes) ||
      bytes / kCompressionMax > H5Dget_storage_size(handle_->id)) {
    fail(concat(": is ", base::readable_shape(extents), " by its own account, and has ",
                H5Dget_storage_size(handle_->id), " bytes; it is damaged, or was never filled"));
  }
}

proto::Blob Object::read_blob() const {
  require_numbers();
  proto::Blob blob{.shape = shape(), .values = {}};
  const std::uint64_t elements = elements_of(blob.shape);
  const bool wide = is_double();
  if (elements > kBlobBytesMax / (wide ? sizeof(double) : sizeof(float))) {
    fail(concat(": is ", base::readable_shape(blob.shape), ", and an array has less than 2 GiB"));
  }
  const auto read = [&](hid_t type, auto numbers) {
    numbers.resize(elements);
    if (H5Dread(handle_->id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers.data()) < 0) {
      fail(concat(": cannot be read; it is damaged", last_error()));
    }
    blob.values = std::move(numbers);
  };
  if (wide) {
    read(H5T_NATIVE_DOUBLE, std::vector<double>());
  } else {
    read(H5T_NATIVE_FLOAT, std::vector<float>());
  }
  return blob;
}

template <typename T>
void Object::read_rows_as(std::uint64_t first, std::uint64_t count, std::int64_t type, T* into) const {
  std::vector<hsize_t> extents = extents_of(shape());
  std::vector<hsize_t> begin(extents.size(), 0);
  if (extents.empty() || first + count > extents[0]) fail(": is shorter than it was; did somebody change it?");
  begin[0] = first;
  extents[0] = count;
  const Scoped from(H5Dget_space(handle_->id), &H5Sclose);
  const Scoped to(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), &H5Sclose);
  if (H5Sselect_hyperslab(from.get(), H5S_SELECT_SET, begin.data(), nullptr, extents.data(), nullptr) < 0 ||
      H5Dread(handle_->id, type, to.get(), from.get(), H5P_DEFAULT, into) < 0) {
    fail(concat(": rows from ", first, " on cannot be read; it is damaged", last_error()));
  }
}

void Object::read_rows(std::uint64_t first, std::uint64_t count, float* into) const {
  read_rows_as(first, count, H5T_NATIVE_FLOAT, into);
}
void Object::read_rows(std::uint64_t first, std::uint64_t count, double* into) const {
  read_rows_as(first, count, H5T_NATIVE_DOUBLE, into);
}

std::int64_t Object::integer(const std::string& name) const {
  const Object dataset = at(name);
  dataset.require_numbers();
  std::int64_t value = 0;
  if (elements_of(dataset.shape()) != 1) dataset.fail(": is not one number");
  if (H5Dread(dataset.handle_->id, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value) < 0) {
    dataset.fail(concat(": cannot be read; it is damaged", last_error()));
  }
  return value;
}

std::string Object::text(const std::string& name) const {
  const Object dataset = at(name);
  const Scoped type(H5Dget_type(dataset.handle_->id), &H5Tclose);
  const bool fits = type.ok() && H5Tget_class(type.get()) == H5T_STRING && H5Tis_variable_str(type.get()) == 0 &&
                    H5Tget_size(type.get()) <= kTextBytesMax && elements_of(dataset.shape()) == 1;
  if (!fits) dataset.fail(": is not a text");
  std::string text(H5Tget_size(type.get()), '\0');
  if (H5Dread(dataset.handle_->id, type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()) < 0) {
    dataset.fail(concat(": cannot be read; it is damaged", last_error()));
  }
  text.resize(std::min(text.find('\0'), text.size()));
  return text;
}

void Object::put(const std::string& name, std::int64_t type, const std::vector<std::int64_t>& shape,
                 const void* data) const {
  const std::vector<hsize_t> extents = extents_of(shape);
  const Scoped space(shape.empty() ? H5Screate(H5S_SCALAR)
                                   : H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                     &H5Sclose);
  // Without the time of its making, so that equal contents are equal files.
  const Scoped creation(H5Pcreate(H5P_DATASET_CREATE), &H5Pclose);
  H5Pset_obj_track_times(creation.get(), false);
  const Scoped dataset(
      H5Dcreate2(handle_->id, name.c_str(), type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT), &H5Dclose);
  if (!dataset.ok() || H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    fail(concat(": ", name, " cannot be written", last_error()));
  }
}

void Object::put_integer(const std::string& name, std::int64_t value) const {
  const auto narrow = static_cast<std::int32_t>(value);
  put(name, H5T_NATIVE_INT32, {1}, &narrow);
}

void Object::put_integer64(const std::string& name, std::uint64_t value) const {
  put(name, H5T_NATIVE_UINT64, {1}, &value);
}

void Object::put_text(const std::string& name, const std::string& value) const {
  const Scoped type(H5Tcopy(H5T_C_S1), &H5Tclose);
  H5Tset_size(type.get(), value.size() + 1);
  put(name, type.get(), {}, value.c_str());
}

void Object::put_blob(const std::string& name, const proto::Blob& blob) const {
  std::visit(
      [&](const auto& numbers) {
        using T = typename std::decay_t<decltype(numbers)>::value_type;
        put(name, sizeof(T) == sizeof(double) ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT, blob.shape, numbers.data());
      },
      blob.values);
}

void Object::fail(const std::string& what) const {
  throw ConfigError(concat(place_, what));
}

// --- Rows
// ---------------------------------------------------------------------------------------------------------------

struct RowFile::Handles {
  struct Dataset {
    hid_t id = -1;
    std::vector<std::int64_t> shape;
  };

  hid_t file = -1;
  std::map<std::string, Dataset> datasets;

  bool close() {
    bool ok = true;
    for (const auto& [name, dataset] : datasets) ok = H5Dclose(dataset.id) >= 0 && ok;
    datasets.clear();
    if (file >= 0) ok = H5Fclose(std::exchange(file, -1)) >= 0 && ok;
    return ok;
  }
  ~Handles() { close(); }
};

namespace {

[[noreturn]] void fail_to_write(const fs::path& file) {
  const std::string why = last_error();
  throw SystemError(concat("cannot write ", file.string(), why, "; is the disk full?"));
}

}  // namespace

RowFile::RowFile(const fs::path& file)
    : file_(file),
      temporary_(file.parent_path() / concat(".", file.filename().string(), ".partial-", ::getpid())),
      handles_(std::make_unique<Handles>()) {
  prepare_library();
  std::error_code failure;
  if (fs::is_directory(file_, failure)) throw SystemError(concat("cannot write ", file_.string(), ": it is a folder"));
  handles_->file = H5Fcreate(temporary_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  if (handles_->file < 0) {
    last_error();
    throw SystemError(concat("cannot write ", file_.string(), ": ", std::strerror(errno)));
  }
}

RowFile::~RowFile() {
  std::error_code ignored;
  handles_.reset();
  if (!temporary_.empty()) fs::remove(temporary_, ignored);
}

void RowFile::append(const std::string& name, const proto::Blob& rows) {
  const bool wide = rows.dtype() == DType::kFloat64;
  const hid_t type = wide ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT;
  std::vector<hsize_t> count = extents_of(rows.shape);
  auto [at, is_new] = handles_->datasets.try_emplace(name);
  Handles::Dataset& dataset = at->second;
  if (is_new) {
    dataset.shape = rows.shape;
    dataset.shape[0] = 0;
    std::vector<hsize_t> extents = extents_of(dataset.shape);
    std::vector<hsize_t> most = extents;
    most[0] = H5S_UNLIMITED;
    std::vector<hsize_t> chunk = count;
    chunk[0] = 1;
    const std::uint64_t row_bytes = elements_of(rows.shape) / count[0] * (wide ? sizeof(double) : sizeof(float));
    chunk[0] = std::max<std::uint64_t>(1, kChunkBytes / std::max<std::uint64_t>(1, row_bytes));
    const Scoped space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), most.data()), &H5Sclose);
    const Scoped creation(H5Pcreate(H5P_DATASET_CREATE), &H5Pclose);
    H5Pset_obj_track_times(creation.get(), false);
    H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data());
    dataset.id = H5Dcreate2(handles_->file, name.c_str(), type, space.get(), H5P_DEFAULT, creation.get(), H5P_DEFAULT);
    if (dataset.id < 0) fail_to_write(file_);
  }
  if (!std::equal(dataset.shape.begin() + 1, dataset.shape.end(), rows.shape.begin() + 1, rows.shape.end())) {
    throw ConfigError(concat(file_.string(), ": the rows of ", name, " are ", base::readable_shape(rows.shape),
                             " now, and were ", base::readable_shape(dataset.shape), " before"));
  }
  std::vector<hsize_t> begin(count.size(), 0);
  begin[0] = static_cast<hsize_t>(dataset.shape[0]);
  dataset.shape[0] += rows.shape[0];
  const std::vector<hsize_t> extents = extents_of(dataset.shape);
  if (H5Dset_extent(dataset.id, extents.data()) < 0) fail_to_write(file_);
  const Scoped to(H5Dget_space(dataset.id), &H5Sclose);
  const Scoped from(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), &H5Sclose);
  const void* const data =
      std::visit([](const auto& numbers) { return static_cast<const void*>(numbers.data()); }, rows.values);
  if (H5Sselect_hyperslab(to.get(), H5S_SELECT_SET, begin.data(), nullptr, count.data(), nullptr) < 0 ||
      H5Dwrite(dataset.id, type, from.get(), to.get(), H5P_DEFAULT, data) < 0) {
    fail_to_write(file_);
  }
}

void RowFile::finish() {
  if (!handles_->close()) fail_to_write(file_);
  const int fd = ::open(temporary_.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  std::error_code failure;
  if (synced) fs::rename(temporary_, file_, failure);
  if (!synced || failure) throw SystemError(concat("cannot write ", file_.string(), ": ", failure.message()));
  temporary_.clear();
}

}  // namespace poseidon::caffe::hdf5
