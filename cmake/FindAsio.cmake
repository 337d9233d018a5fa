# Finds standalone Asio, a library of headers only (Debian: libasio-dev), and defines asio::asio.
find_path(Asio_INCLUDE_DIR asio.hpp)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Asio REQUIRED_VARS Asio_INCLUDE_DIR)
if(Asio_FOUND AND NOT TARGET asio::asio)
  add_library(asio::asio INTERFACE IMPORTED)
  target_include_directories(asio::asio SYSTEM INTERFACE ${Asio_INCLUDE_DIR})
  # Whether Asio takes memory by aligned_alloc would else depend on what a file includes before it: taken by one, given back by the other.
  target_compile_definitions(asio::asio INTERFACE ASIO_STANDALONE ASIO_NO_DEPRECATED ASIO_DISABLE_STD_ALIGNED_ALLOC)
  target_link_libraries(asio::asio INTERFACE Threads::Threads)
endif()
