#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace relay::coordinator {

/// Which pipelines an instance should hold. Pure.
struct Share {
  std::size_t take = 0;     ///< how many more it may take
  std::size_t release = 0;  ///< how many it should hand over
};

/// `held` of `pipelines`, with `instances` alive (this one included). An instance takes at most
/// ceil(pipelines / instances); in leader mode the leader takes all and the others none.
Share share_of(std::size_t pipelines, std::size_t instances, std::size_t held);
Share leader_share(std::size_t pipelines, bool leader, std::size_t held);

/// The advisory lock of a pipeline in a group: 64 bits of md5 over the length-prefixed names, so
/// that no two pairs of names read the same and collisions are as rare as 64 bits make them.
std::int64_t lock_key(std::string_view group, std::string_view pipeline);

}  // namespace relay::coordinator
