# Table 1, prevalence, a model and a figure from the group tables of a cohort.
#   Rscript paper.R OUTPUT_DIR DEST
library(MASS)

folders <- commandArgs(trailingOnly = TRUE)
dir.create(folders[2], showWarnings = FALSE, recursive = TRUE)

# Quotation marks are text in BIDS tables, n/a is missing, and a site called T is not TRUE.
people <- read.delim(file.path(folders[1], "group_participants.tsv"), na.strings = "n/a",
                     quote = "", check.names = FALSE, colClasses = c(site = "character"))
status <- as.data.frame(table(status = people$status), responseName = "count")
write.table(status, file.path(folders[2], "status.tsv"),
            sep = "\t", quote = FALSE, row.names = FALSE)
people <- people[people$status == "complete", ]

# Table 1
describe <- function(group) {
  counts <- na.omit(group$n_definite)
  c("participants" = nrow(group),
    "age, years: mean (SD)" = sprintf("%.1f (%.1f)", mean(group$age, na.rm = TRUE),
                                      sd(group$age, na.rm = TRUE)),
    "hypertension" = sum(group$hypertension, na.rm = TRUE),
    "hypertension unknown" = sum(is.na(group$hypertension)),
    "definite microbleeds" = sprintf("%d (%.0f %%)", sum(counts > 0), 100 * mean(counts > 0)),
    "definite microbleeds unknown" = sum(is.na(group$n_definite)),
    "number: median (quartiles)" = sprintf("%.0f (%.0f to %.0f)", median(counts),
                                           quantile(counts, 0.25), quantile(counts, 0.75)),
    "field strength, T" = paste(sort(unique(group$MagneticFieldStrength)), collapse = ", "))
}
groups <- c(split(people, people$site), list(all = people))
write.table(sapply(groups, describe), file.path(folders[2], "table1.tsv"),
            sep = "\t", quote = FALSE, col.names = NA)

# Prevalence with exact intervals
share <- function(positive) {
  known <- na.omit(positive)
  ends <- binom.test(sum(known), length(known))$conf.int
  c("participants with" = sum(known), of = length(known), share = mean(known),
    low = ends[1], high = ends[2])
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
terms <- coef(fit)
# Standard errors of summary(fit) take the dispersion as known; these are of all parameters at once
loss <- function(at) {
  mu <- exp(model.matrix(fit) %*% at[seq_along(terms)])
  -sum(dnbinom(fit$y, size = at[["theta"]], mu = mu, log = TRUE))
}
errors <- sqrt(diag(solve(optimHess(c(terms, theta = fit$theta), loss))))[names(terms)]
df <- df.residual(fit)
# The dispersion is estimated too, and comes out too small: the errors are made wider for it
reach <- qt(0.975, df) * sqrt(nobs(fit) / df) * errors
ratios <- exp(cbind("rate ratio" = terms, low = terms - reach, high = terms + reach))[-1, ]
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
