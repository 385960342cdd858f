import { describeLostAnswers } from '../support/lost-answer-specs.js';
import { postgresWorld } from '../support/postgres-world.js';

describeLostAnswers(postgresWorld);
