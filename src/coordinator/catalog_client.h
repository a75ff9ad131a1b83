#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "config/pipeline_config.h"
#include "core/deadline.h"
#include "core/error.h"
#include "ownership/lease_session.h"
#include "pipeline/pipeline.h"
#include "postgres/connection.h"

namespace relay::coordinator {

/// Reads the configuration file; null: there is none.
using FileLoader = std::function<Result<std::vector<config::PipelineConfig>>()>;

/// What operators ask of a pipeline beside its configuration.
struct Control {
  bool paused = false;
  std::vector<ReplayRequest> replays;
};

/// All control requests that stand in the database, and what notifications told since the last
/// reading.
struct Requests {
  std::map<std::string, Control> controls;
  std::set<std::string> named;    ///< pipelines that a notification named
  std::set<std::string> resumed;  ///< those of them that an operator resumed
};

/// The pipelines of the SQL catalog, the disabled ones among them. `access`: what they may take
/// from the relay's host.
Result<std::vector<config::PipelineConfig>> read_catalog(postgres::Connection& connection,
                                                         const config::Catalogue& catalogue,
                                                         const config::HostAccess& access,
                                                         Deadline deadline, std::stop_token stop);

/// Pipelines of catalog and file, without the disabled ones. A name that both use is an error of
/// that name, because the relay cannot tell which of the two is meant. Pure.
std::vector<config::PipelineConfig> merge(std::vector<config::PipelineConfig> from_sql,
                                          const std::vector<config::PipelineConfig>& from_file);

/// A control request, as a notification says it; nothing: the notification is about something else.
/// Pure.
struct ControlNotice {
  std::string pipeline;
  bool resume = false;
};
std::optional<ControlNotice> control_notice_of(const std::string& payload);

/// Reads what the configuration (SQL catalog and file) and the operators want of the pipelines,
/// where it may have changed. What could not be read is read at the next attempt. The control
/// thread; `reload` any thread.
class CatalogClient {
 public:
  /// `catalogue` outlives this.
  CatalogClient(const config::Catalogue& catalogue, config::HostAccess access,
                FileLoader load_file);

  /// The configuration file is to be read again.
  void reload() { reload_ = true; }
  bool reload_is_due() const { return reload_; }
  /// A new session was opened: what was missed between the two is read again.
  void start_over();
  /// References to files and environment are to be resolved again, whatever the catalog's version.
  void resolve_again() { version_.clear(); }
  /// The control requests are to be read again.
  void expect_requests() { requests_due_ = true; }
  /// Notifications arrived.
  void hear(std::span<const std::string> payloads);

  /// The pipelines that should run; nothing: they are as they were. A file that cannot be parsed is
  /// logged and changes nothing.
  Result<std::optional<std::vector<config::PipelineConfig>>> configuration(
      ownership::LeaseSession& session, std::stop_token stop);
  /// The control requests; nothing: none came since they were last read.
  Result<std::optional<Requests>> requests(ownership::LeaseSession& session, std::stop_token stop);

 private:
  void read_file();

  const config::Catalogue& catalogue_;
  const config::HostAccess access_;
  const FileLoader load_file_;
  std::atomic<bool> reload_;
  bool requests_due_ = true;
  std::string version_;  ///< of the catalog when it was last read; empty: it is read in any case
  std::vector<config::PipelineConfig> from_file_;
  std::set<std::string> named_;
  std::set<std::string> resumed_;
};

}  // namespace relay::coordinator
