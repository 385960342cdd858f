/** The same specs as on PostgreSQL. */

import { describeBulkCalls } from '../support/bulk-specs.js';
import { memoryWorld } from '../support/memory-world.js';

describeBulkCalls(memoryWorld());
