# Table 1, prevalence, a model and a figure from the group tables of a cohort.
#   Rscript paper.R OUTPUT_DIR DEST
library(MASS)

folders <- commandArgs(trailingOnly = TRUE)
dir.create(folders[2], showWarnings = FALSE, recursive = TRUE)

# Quotation marks are text in BIDS tables, and n/a is missing.
people <- read.delim(file.path(folders[1], "group_participants.tsv"),
                     na.strings = "n/a", quote = "", check.names = FALSE)
write.table(table(people$status), file.path(folders[2], "status.tsv"),
            sep = "\t", quote = FALSE, row.names = FALSE)
people <- people[people$status == "complete", ]

# Table 1
describe <- function(group) {
  counts <- na.omit(group$n_definite)
  c("participants" = nrow(group),
    "age, years: mean (SD)" = sprintf("%.1f (%.1f)", mean(group$age, na.rm = TRUE),
                                      sd(group$age, na.rm = TRUE)),
    "hypertension" = sum(group$hypertension, na.rm = TRUE),
    "definite microbleeds" = sprintf("%d (%.0f %%)", sum(counts > 0), 100 * mean(counts > 0)),
    "number: median (quartiles)" = sprintf("%.0f (%.0f to %.0f)", median(counts),
                                           quantile(counts, 0.25), quantile(counts, 0.75)))
}
groups <- c(split(people, people$site), list(all = people))
write.table(sapply(groups, describe), file.path(folders[2], "table1.tsv"),
            sep = "\t", quote = FALSE, col.names = NA)

# Prevalence with exact intervals
share <- function(positive) {
  known <- na.omit(positive)
  ends <- binom.test(sum(known), length(known))$conf.int
  c(with = sum(known), of = length(known), share = mean(known), low = ends[1], high = ends[2])
}
pattern <- people$pattern_definite
pattern[pattern == "undetermined"] <- NA
shares <- rbind(
  "any zone" = share(people$n_definite > 0),
  lobar = share(people$n_definite_lobar > 0),
  deep = share(people$n_definite_deep > 0),
  infratentorial = share(people$n_definite_infratentorial > 0),
  "strictly lobar" = share(pattern == "strictly lobar"),
  "strictly deep" = share(pattern == "strictly deep"),
  mixed = share(pattern == "mixed"),
  "cerebellar only" = share(pattern == "cerebellar only"))
write.table(shares, file.path(folders[2], "prevalence.tsv"),
            sep = "\t", quote = FALSE, col.names = NA)

# A model: glm.nb has theta where statsmodels and cmbprep have alpha = 1 / theta
fit <- glm.nb(n_definite ~ age + hypertension + factor(site), data = people)
rows <- summary(fit)$coefficients[-1, ]
df <- df.residual(fit)
# The dispersion is estimated too, and comes out too small: the errors are made wider for it
reach <- qt(0.975, df) * sqrt(nobs(fit) / df) * rows[, "Std. Error"]
ratios <- exp(cbind(ratio = rows[, "Estimate"], low = rows[, "Estimate"] - reach,
                    high = rows[, "Estimate"] + reach))
write.table(ratios, file.path(folders[2], "rate_ratios.tsv"),
            sep = "\t", quote = FALSE, col.names = NA)

# A figure
pdf(file.path(folders[2], "prevalence.pdf"), width = 6, height = 3.5)
par(mar = c(4, 9, 1, 1))
place <- rev(seq_len(nrow(shares)))
plot(100 * shares[, "share"], place, xlim = c(0, 100), yaxt = "n", ylab = "", pch = 19,
     xlab = "participants, % (exact 95 % interval)")
segments(100 * shares[, "low"], place, 100 * shares[, "high"], place)
axis(2, at = place, labels = rownames(shares), las = 1)
invisible(dev.off())
