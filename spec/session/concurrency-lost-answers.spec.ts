/** The same specs as on PostgreSQL. */

import { describeLostAnswers } from '../support/lost-answer-specs.js';
import { memoryWorld } from '../support/memory-world.js';

describeLostAnswers(memoryWorld());
